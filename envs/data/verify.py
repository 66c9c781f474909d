"""Verify that the files of a dataset are what was written. They are checked when it is opened, and hashed once.

`manifest.json` holds the hash of `meta.json`, which holds the hashes of the columns. Verified files are remembered in
`verified.json` by inode, size and times, so opening a dataset again takes less than a millisecond more. Where that file cannot be
written, the columns are hashed every time.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

MANIFEST, META, VERIFIED = "manifest.json", "meta.json", "verified.json"
LARGEST_JSON = 64 << 20  # bytes; a larger file is not one of ours
LARGEST_HEADER = 10_000  # bytes of a column's header, NumPy's own limit

Stamp = list[int]  # inode, size, mtime, ctime


class Damage(ValueError):
    """The contents of a file are wrong; the message says how."""


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading. Others are refused: a pipe could block, and a device may have no end."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise Damage(f"{path.name} is missing") from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise Damage(f"{path.name} is not a file")
    return os.fdopen(number, "rb")


def read_json(path: Path) -> tuple[dict[str, Any], str]:
    """The object in a JSON file, and the file's hash."""
    with open_regular(path) as file:
        text = file.read(LARGEST_JSON + 1)
    if len(text) > LARGEST_JSON:
        raise Damage(f"{path.name} has more than {LARGEST_JSON:,} bytes")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damage(f"{path.name} is not JSON") from error
    if not isinstance(found, dict):
        raise Damage(f"{path.name} holds no JSON object")
    return found, hashlib.sha256(text).hexdigest()


def read_meta(folder: Path) -> tuple[dict[str, Any], str]:
    """`meta.json` and its hash, after checking that it is the one that was written and has all required entries."""
    manifest, _ = read_json(folder / MANIFEST)
    meta, digest = read_json(folder / META)
    if manifest.get(META) != digest:
        raise Damage(f"{META} is not what was written")
    columns, recipe = meta.get("columns"), meta.get("recipe")
    if not isinstance(columns, dict) or not all(isinstance(one, str) for one in columns.values()):
        raise Damage(f"{META} does not list the columns")
    if any(name.startswith(".") or "/" in name for name in columns):
        raise Damage(f"{META} names a column outside of the folder")
    if not isinstance(recipe, dict) or not isinstance(recipe.get("spaces"), dict):
        raise Damage(f"{META} does not describe the spaces")
    if type(meta.get("steps")) is not int or meta["steps"] < 1:
        raise Damage(f"{META} does not state the number of steps")
    return meta, digest


def map_column(file: BinaryIO, name: str) -> np.ndarray:
    """The memory-mapped array of an open `.npy` file, after checking that the file's size is what its header says."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file, max_header_size=LARGEST_HEADER)
    except OSError:
        raise
    except Exception as error:  # NumPy parses the header as Python and raises many types
        raise Damage(f"the header of {name}.npy cannot be read") from error
    if dtype.hasobject or fortran or not shape:
        raise Damage(f"{name}.npy does not hold rows of numbers")
    size, promised = os.fstat(file.fileno()).st_size, file.tell() + int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size != promised:
        raise Damage(f"{name}.npy has {size:,} bytes, but its header says {promised:,}")
    if not size - file.tell():
        return np.zeros(shape, dtype)
    column = np.memmap(file, dtype, "r", file.tell(), shape)
    return np.asarray(column)  # a plain view: indexing an np.memmap itself is several times slower


class Verified:
    """Remembers which files of one dataset were verified."""

    def __init__(self, folder: Path, key: str):
        """`key` is the hash of `meta.json`. Entries made under another key are ignored."""
        self.path, self.key = folder / VERIFIED, key
        self.known: dict[str, Any] = {}
        self.stamps: dict[str, Stamp] = {}
        with suppress(OSError, Damage):
            held, _ = read_json(self.path)
            if held.get("contents") == key and isinstance(held.get("files"), dict):
                self.known = held["files"]

    def knows(self, name: str, file: BinaryIO) -> bool:
        """Whether this file was verified before and is unchanged."""
        self.stamps[name] = _stamp(file)
        return self.known.get(name) == self.stamps[name]

    def remember(self) -> None:
        """Store that all files passed to `knows` are verified."""
        text = json.dumps({"contents": self.key, "files": self.stamps})
        with suppress(OSError):  # another user's folder, or a full disc: then the files are hashed again next time
            handle, name = tempfile.mkstemp(prefix=f".{VERIFIED}.", dir=self.path.parent)
            with os.fdopen(handle, "w") as file:
                file.write(text)
            os.chmod(name, 0o644)
            os.replace(name, self.path)


def hash_of(file: BinaryIO) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _stamp(file: BinaryIO) -> Stamp:
    found = os.fstat(file.fileno())
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
