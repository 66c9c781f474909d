"""Image backbones that do not learn: their features can be computed once, before training (`trainer.cache_features`)."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces
from torch import nn

from policies.encoders.encoder import Encoder, kind
from policies.encoders.image import Image

BACKBONE = ".backbone."  # in the names of the weights that are frozen


def refuse_frozen(policy: Any, space: spaces.Dict, asked: str, trained: bool) -> str | None:
    """The sentence for a policy's configuration whose image features cannot be computed once, else None. `asked` is what the
    user typed for that; `trained`: its backbone will have weights that learned something."""
    encoder = getattr(policy, "encoder", None)
    seen = [name for name, part in space.items() if kind(part) == "picture" and name not in getattr(encoder, "ignore", ())]
    if encoder is None or not seen:
        return f"{asked} is for policies that see images, and this one sees {', '.join(sorted(space))}; leave it out"
    if encoder.image_shift:
        return (
            f"{asked} computes each image's features once, and policy.encoder.image_shift={encoder.image_shift} shifts the image "
            "anew each time: set one of them to 0 (false)"
        )
    if encoder.image_film:
        return (
            f"{asked} computes each image's features once, for every instruction, and with policy.encoder.image_film=true they "
            "depend on it: set one of them to false"
        )
    if not trained and not encoder.image_pretrained:
        return (
            f"{asked} freezes the image backbone, which has learned nothing yet: add init_from=RUN, a run of any policy with the "
            "same policy.encoder.image (or, for resnet18 and vit_b16, policy.encoder.image_pretrained=true)"
        )
    return None


def images(policy: nn.Module) -> dict[str, Image]:
    """A policy's encoders of images by modality."""
    encoders = [module for module in policy.modules() if isinstance(module, Encoder)]
    return {name: part for encoder in encoders for name, part in encoder.parts.items() if isinstance(part, Image)}
