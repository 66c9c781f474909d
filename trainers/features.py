"""`trainer.cache_features`: the features of all recorded images, computed once by a frozen backbone and kept on disc.

A head then trains on 25,000 samples a second where images allow 600, and all heads of a study share one file. The file's address
holds all that decides its bits, and its hash becomes part of the data's fingerprint: a resumed run goes on with the very same
features, or is refused.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save as serialized

from conf.build import plain
from conf.errors import BadRequest
from envs.data.cache import address, obtain
from envs.data.store import OBSERVATION, Dataset
from policies.base import Policy
from policies.encoders.frozen import images
from policies.encoders.image import Image

ROWS = 256  # images at once
FILE, HASH = "features.npy", "sha256.txt"
Progress = Callable[[int, int], None]


def freeze(policy: Policy) -> None:
    for part in images(policy).values():
        part.freeze()


def with_features(dataset: Dataset, policy: Policy, root: Path, progress: Progress) -> Dataset:
    """The dataset with features in place of its images, which `policy` must hold frozen."""
    made = copy.copy(dataset)
    made.columns, made.observations = dict(dataset.columns), dict(dataset.observations)
    made.meta = {**dataset.meta, "columns": dict(dataset.meta["columns"])}
    for name, part in images(policy).items():
        column, digest = _features(dataset, name, part, root, progress)
        made.columns[OBSERVATION + name] = made.observations[name] = column
        made.meta["columns"][OBSERVATION + name] = digest
    return made


def _features(dataset: Dataset, name: str, part: Image, root: Path, progress: Progress) -> tuple[np.ndarray, str]:
    """[steps, feature_size] float32, and the hash of its file."""
    device = next(part.parameters()).device
    weights = {key: value.detach().cpu().contiguous() for key, value in part.backbone.state_dict().items()}
    recipe = {
        "data": dataset.meta["columns"][OBSERVATION + name],
        "weights": hashlib.sha256(serialized(weights)).hexdigest(),
        "image": {key: value for key, value in plain(part.config).items() if key.startswith("image")},
        "torch": torch.__version__,  # another version, device or number of threads rounds differently
        "device": device.type,
        "threads": torch.get_num_threads(),
        "rows": ROWS,
    }

    def make(folder: Path) -> None:
        column = np.lib.format.open_memmap(folder / FILE, "w+", np.float32, (len(dataset), part.feature_size))
        for start in range(0, len(dataset), ROWS):
            shown = np.array(dataset.observations[name][start : start + ROWS])  # a copy, because the column is read-only
            column[start : start + ROWS] = part.feature(torch.from_numpy(shown).to(device)).cpu().numpy()
            progress(min(start + ROWS, len(dataset)), len(dataset))
        column.flush()
        (folder / HASH).write_text(_digest(folder / FILE))

    was_training = part.training
    part.eval()
    with torch.no_grad():
        folder = obtain(root, address(recipe, f"features-{name}"), make)
    part.train(was_training)
    try:
        written, digest = (folder / HASH).read_text(), _digest(folder / FILE)
        column = np.load(folder / FILE, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadRequest(f"the features {folder} cannot be read ({error}); delete that folder to have them made again") from error
    if written != digest or column.shape != (len(dataset), part.feature_size):
        raise BadRequest(f"the features {folder} are damaged; delete that folder to have them made again")
    return column, digest


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
