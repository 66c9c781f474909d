"""`encoder=`: how each kind of modality is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class Config:
    """`encoder=`; lives at `policy.encoder`."""

    grid: Literal["mlp", "conv", "flat"] = (
        "mlp"  # mlp: embed and mix all cells | conv: write-up 000's tokenizer | flat: its 20 M linear
    )
    grid_tokens: int = 4  # tokens per grid (mlp only; conv and flat make one per cell)
    grid_embedding: int = 8  # size of a cell's embedding (mlp only)
    grid_hidden: int = 256  # width of the mixing MLP (mlp only)
    # FiLM (Perez et al. 2018, arXiv 1709.07871): the instruction scales and shifts every cell's embedding (mlp only), so that a
    # cell's thing is compared with the one that the instruction names
    grid_film: bool = False
    image: Literal["cnn", "resnet18", "vit_b16"] = "cnn"  # cnn: write-up 004's four convolutions
    # cnn: softmax: position of each feature | average: only its amount (write-up 004). Of any backbone: none: each cell of the
    # last map becomes a token of its own, with an embedding of its position (as in the original ACT)
    image_pool: Literal["softmax", "average", "none"] = "softmax"
    image_size: int = 0  # side to which images are resized on the device; 0 leaves them as they are
    image_pretrained: bool = False  # resnet18, vit_b16: start from ImageNet weights, downloaded before training
    image_shift: int = 0  # pixels by which training images are randomly shifted
    image_bf16: bool = False  # run the backbone in bfloat16 during training
    image_film: bool = False  # the instruction scales and shifts the outputs of the second and third convolution (cnn only)
    mission: Literal["words", "pairs"] = "words"  # what an instruction is a sum of: words by position, or pairs of neighbours
    state_normalise: bool = True  # by the training data's mean and standard deviation; write-up 004 did not
    # The state times this, once normalised. A network learns coarse differences first: with 30 it sees earlier what a centimetre
    # changes, which scripted experts decide by.
    state_scale: float = 1.0
    # tokens: each modality as normalised tokens of one width | concat: one token of all features, unchanged
    # | sum: one token, the sum of all features projected to its width (write-up 004's ACT)
    join: Literal["tokens", "concat", "sum"] = "tokens"
    ignore: list[str] = field(default_factory=list)  # modalities that the policy does not see

    def __post_init__(self) -> None:
        for name in ("grid_tokens", "grid_embedding", "grid_hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.grid_film and self.grid != "mlp":
            raise ValueError(f"grid_film needs grid=mlp, got grid={self.grid}")
        if self.image_film and self.image != "cnn":
            raise ValueError(f"image_film needs image=cnn, got image={self.image}")
        if self.image_pool == "none" and self.join != "tokens":
            raise ValueError(f"image_pool=none makes many tokens of an image, so it needs join=tokens, got join={self.join}")
        if self.image_size and not 16 <= self.image_size <= 1024:
            raise ValueError(f"image_size must be between 16 and 1024, or 0 to leave images as they are, got {self.image_size}")
        if not 0 < self.state_scale <= 1000:
            raise ValueError(f"state_scale must be above 0 and at most 1000, got {self.state_scale}")
        if not 0 <= self.image_shift <= 64:
            raise ValueError(f"image_shift must be between 0 and 64 pixels, got {self.image_shift}")
        if self.image_pretrained and self.image == "cnn":
            raise ValueError("image_pretrained needs image=resnet18 or image=vit_b16: there are no weights for the cnn")
