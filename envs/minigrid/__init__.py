import importlib.util
import sys
from typing import Any


def _import_when_used(name: str) -> None:
    """Let `import NAME` give a module that is executed at its first use.

    `importlib.util.LazyLoader` executes it at the next `import NAME` already, because that asks for its `__spec__`.
    """
    if name in sys.modules or (spec := importlib.util.find_spec(name)) is None or (loader := spec.loader) is None:
        return
    module = importlib.util.module_from_spec(spec)
    path = module.__dict__.pop("__path__", None)  # what imports a part of the package asks for it

    def execute(attribute: str) -> Any:  # called for each attribute that the module lacks
        del module.__getattr__
        if path is not None:
            module.__path__ = path
        loader.exec_module(module)
        return getattr(module, attribute)

    module.__getattr__ = execute  # type: ignore[method-assign]
    sys.modules[name] = module


_import_when_used("networkx")  # .3 s, which minigrid needs for its WFC environments alone

from envs.minigrid.family import Config, MiniGrid  # noqa: E402

__all__ = ["Config", "MiniGrid"]
