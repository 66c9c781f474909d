"""Which runs may be trained in one process (`cluster.together`): those that differ in nothing that changes a shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from conf import folder
from conf.check import Request
from conf.errors import BadRequest

MAY_DIFFER = (
    *("seed", "policy.dropout", "policy.temperature", "trainer.grad_clip"),
    *("trainer.optimizer.lr", "trainer.optimizer.weight_decay", "trainer.optimizer.betas"),
)
MAY_DIFFER_BELOW = "trainer.schedule."


def refuse(requests: Sequence[Request], size: int) -> None:
    """BadRequest if these runs cannot be trained together, `size` at a time."""
    asked = f"cluster.together={size}"
    first = requests[0]
    for request in requests:
        if why := _alone(request):
            raise BadRequest(f"{asked} cannot be: {why}; leave it out")
        for key in folder.differing(first.config, request.config):
            if key not in MAY_DIFFER and not key.startswith(MAY_DIFFER_BELOW):
                values = " and ".join(str(dict(folder.leaves(one.config)).get(key)) for one in (first, request))
                raise BadRequest(
                    f"{asked} trains runs of one shape, and these differ in {key} ({values}): launch one sweep for each of its "
                    "values, or leave out cluster.together"
                )


def _alone(request: Request) -> str | None:
    """Why this run can be trained only by itself."""
    trainer: Any = request.targets["trainer"]
    policy: Any = request.targets["policy"]
    if request.mode != "train":
        return f"mode={request.mode} trains nothing"
    if policy.alone:
        return f"{policy.__name__} cannot be stacked ({policy.alone})"
    if not trainer.recorded:
        return f"{trainer.__name__} makes data of its own for each run"
    for key in ("cache_features", "freeze_after", "compile", "profile", "recompute"):
        if getattr(request.trainer, key):
            return f"trainer.{key} is for a single run"
    if request.logger.uses_wandb:
        return "a process has one W&B run, and several are trained in it"
    return None
