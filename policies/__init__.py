"""Policies: one method, one file. From Python: `policies.load("runs/x")` gives one that is ready to `act`."""

import importlib.util
from pathlib import Path
from typing import Any

BESIDE = ("conf", "envs")  # packages beside this one whose names other projects use too


def __getattr__(name: str) -> Any:
    """Import `load`, and with it PyTorch, only when it is used."""
    if name == "load":
        _refuse_foreign()
        from policies.store import load

        return load
    raise AttributeError(f"module 'policies' has no attribute {name!r}")


def _refuse_foreign() -> None:
    root = Path(__file__).resolve().parents[1]
    for name in BESIDE:
        spec = importlib.util.find_spec(name)
        places = [*(spec.submodule_search_locations or ()), spec.origin or ""] if spec else []
        if not any(Path(place).resolve().is_relative_to(root / name) for place in places if place):
            raise ImportError(
                f"{name} is {places[-1] if places else 'nowhere'}, which is in the way of the {name} beside {root / 'policies'}: "
                f"put {root} first on sys.path, or start Python in another folder"
            )
