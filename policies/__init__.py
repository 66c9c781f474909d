"""Policies: one method, one file. From Python: `policies.load("runs/x")` gives one that is ready to `act`."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`load`, without paying for PyTorch when only the package is imported."""
    if name == "load":
        from policies.store import load

        return load
    raise AttributeError(f"module 'policies' has no attribute {name!r}")
