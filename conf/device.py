"""Which device a run computes on."""

from conf.errors import BadRequest


def pick(name: str) -> str:
    """The torch device. `auto` is the best available one; a device that this machine lacks is refused."""
    import torch  # not needed for most of what conf/ does

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(kind for kind, there in available.items() if there)
    if not available[name]:
        raise BadRequest(f"device={name} is not available on this machine; use device=auto")
    return name
