import importlib.util
import sys


def _import_when_used(name: str) -> None:
    if name not in sys.modules and (spec := importlib.util.find_spec(name)) and spec.loader:
        spec.loader = importlib.util.LazyLoader(spec.loader)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])


_import_when_used("networkx")  # .3 s, which minigrid needs for its WFC environments alone

from envs.minigrid.family import Config, MiniGrid  # noqa: E402

__all__ = ["Config", "MiniGrid"]
