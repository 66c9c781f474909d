"""`resume=true hydra.run.dir=RUN` is enough to resume a run: its other overrides are read from its overrides.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from conf.errors import BadRequest
from conf.files import Damaged, read_text
from conf.overrides import parsed

# Never taken from a run folder: Hydra's own settings, trusted packages, and what each command has to ask for itself.
NOT_AGAIN = ("hydra", "trusted_packages", "resume", "dry", "skip_invalid")


def with_its_own(words: Sequence[str]) -> list[str]:
    """The command line, preceded by the overrides that the resumed run was started with."""
    typed = {override.key_or_group: override.value() for override in parsed([w for w in words if _is_override(w)])}
    folder = typed.get("hydra.run.dir")
    if typed.get("resume") is not True or not isinstance(folder, str) or not (Path(folder) / "overrides.yaml").exists():
        return [*words]
    try:
        held = yaml.safe_load(read_text(Path(folder) / "overrides.yaml", 2**16))
        if not isinstance(held, list) or not all(isinstance(word, str) for word in held):
            raise Damaged("overrides.yaml is not a list of words")
        own = parsed(held)
    except (Damaged, yaml.YAMLError, RecursionError) as error:
        raise BadRequest(f"cannot read what the run in {folder} was started with ({error}); type its overrides again") from error
    kept = [
        str(override.input_line)
        for override in own
        if override.key_or_group not in typed and override.key_or_group.split(".")[0].split("/")[0] not in NOT_AGAIN
    ]
    alone = [] if "hydra.mode" in typed else ["hydra.mode=RUN"]  # one run, even if a study or a cluster launched it
    flags = [word for word in words if not _is_override(word)]
    return [*flags, *kept, *(word for word in words if _is_override(word)), *(alone if kept else [])]


def _is_override(word: str) -> bool:
    return "=" in word and not word.startswith("-")
