"""`resume=true hydra.run.dir=RUN` is enough to resume a run: its other overrides are read from its overrides.yaml."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import yaml

from conf.errors import BadRequest
from conf.files import Damaged, read_text
from conf.overrides import parsed

# Never taken from a run folder: Hydra's own settings, trusted packages, and what each command has to ask for itself.
NOT_AGAIN = ("hydra", "trusted_packages", "resume", "dry", "skip_invalid")
FILE = "overrides.yaml"
CHECKSUM = "# sha256 "  # begins the last line: without it, a file that was cut would be a valid list of other words


def with_its_own(words: Sequence[str]) -> list[str]:
    """The command line, preceded by the overrides that the resumed run was started with."""
    typed = {override.key_or_group: override.value() for override in parsed([w for w in words if _is_override(w)])}
    folder = typed.get("hydra.run.dir")
    if typed.get("resume") is not True or not isinstance(folder, str) or not (Path(folder) / FILE).exists():
        return [*words]
    try:
        own = parsed(read(Path(folder)))
    except Damaged as error:
        raise BadRequest(
            f"cannot read what the run in {folder} was started with ({error}); delete {FILE} and type its overrides again"
        ) from error
    kept = [
        str(override.input_line)
        for override in own
        if override.key_or_group not in typed and override.key_or_group.split(".")[0].split("/")[0] not in NOT_AGAIN
    ]
    alone = [] if "hydra.mode" in typed else ["hydra.mode=RUN"]  # one run, even if a study or a cluster launched it
    flags = [word for word in words if not _is_override(word)]
    return [*flags, *kept, *(word for word in words if _is_override(word)), *(alone if kept else [])]


def as_text(overrides: Sequence[str]) -> str:
    """The content of a run's overrides.yaml."""
    text = yaml.safe_dump([*overrides])
    return f"{text}{CHECKSUM}{_digest(text)}\n"


def read(folder: Path) -> list[str]:
    """The overrides of the run in `folder`, exactly as they were written; otherwise `Damaged`."""
    text, mark, written = read_text(folder / FILE, 2**16).rpartition(CHECKSUM)
    if not mark or written != f"{_digest(text)}\n":
        raise Damaged(f"{FILE} does not match the checksum in its last line")
    found: list[str] = yaml.safe_load(text)
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _is_override(word: str) -> bool:
    return "=" in word and not word.startswith("-")
