"""Read files that may come from somebody else or be damaged: only regular files, no links, of a limited size and the expected
shape. Everything else raises `Damaged`."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

import yaml

LARGEST_TEXT = 4 * 2**20  # bytes of a JSON file; a policy.json has two thousand
LARGEST_YAML = 2**18  # a config.yaml has three thousand, and reading YAML is slow


class Damaged(ValueError):
    """A file does not hold what was written; the text says which file and how."""


@contextmanager
def regular(path: Path) -> Iterator[BufferedReader]:
    """The regular file, opened for reading. A pipe, a device or a link could hang, never end, or lead elsewhere."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise Damaged(f"{path.name} is missing") from error
    except OSError as error:
        if path.is_symlink():
            raise Damaged(f"{path.name} is a link") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Damaged(f"{path.name} is not a file")
    with open(descriptor, "rb") as file:
        yield file


def digest(path: Path) -> str:
    with regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_text(path: Path, most: int = LARGEST_TEXT) -> str:
    with regular(path) as file:
        found = file.read(most + 1)
    if len(found) > most:
        raise Damaged(f"{path.name} is larger than {most:,} bytes")
    try:
        return found.decode()
    except UnicodeDecodeError as error:
        raise Damaged(f"{path.name} is not text") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Python reads and writes NaN and Infinity, but they are not JSON."""
    text = read_text(path)
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
    except Damaged as error:
        raise Damaged(f"{path.name} holds {error}") from error
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path.name} is not JSON") from error
    if not isinstance(found, dict):
        raise Damaged(f"{path.name} is not a JSON object")
    return found


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping without anchors: a few lines of anchors can expand to more than fits into memory."""
    text = read_text(path, LARGEST_YAML)
    try:
        found = yaml.load(text, Loader=_WithoutAliases)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise Damaged(f"{path.name} is not YAML, or holds what no config does") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise Damaged(f"{path.name} is not a mapping")
    return found


class _WithoutAliases(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)


def _refuse_constant(name: str) -> NoReturn:
    raise Damaged(name)
