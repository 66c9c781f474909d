"""Damage as discs and transfers cause it, to one file of a folder: a flipped bit, a cut file, or a block of zeros."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KINDS = ("bit", "cut", "zeros", "byte")


def damage(folder: Path, seed: int) -> str:
    """Damage one file below `folder`, in a way that depends on `seed` alone; returns what was done."""
    rng = random.Random(seed)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink() and path.stat().st_size)
    path = rng.choice(files)
    before = path.read_bytes()
    after, kind, place = bytearray(before), rng.choice(KINDS), rng.randrange(len(before))
    if kind == "bit":
        after[place] ^= 1 << rng.randrange(8)
    elif kind == "byte":
        after[place] = (after[place] + rng.randrange(1, 256)) % 256
    elif kind == "cut":
        del after[place:]
    else:
        after[place : place + 64] = bytes(min(64, len(after) - place))
    path.write_bytes(after)
    return f"{kind} at {place} of {path.relative_to(folder)}"


@contextmanager
def copied(folder: Path, to: Path) -> Iterator[Path]:
    """A copy that may be written to."""
    shutil.copytree(folder, to, symlinks=True)
    try:
        yield to
    finally:
        shutil.rmtree(to)
