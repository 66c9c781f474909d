"""The run folder: which one a request gets, and what it holds before the first step.

    config.yaml     the resolved configuration       command.txt     paste it to run it again
    overrides.yaml  what was asked for               versions.json   Python, packages, git commit

A plain run gets `runs/<name>/<time>-<identity>`. The identity is the same for every run of the same configuration, so
`resume=true` can find the one to go on with, and a folder can refuse a run that is not its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from conf import again, internals
from conf.errors import BadRequest
from conf.files import Damaged, read_yaml
from conf.version import of_this_process

AUTO = "auto"  # hydra.run.dir and hydra.sweep.dir until we choose a folder
# Where a run happens, its name, how it was started and what of it stays on disc do not change what is computed.
NOT_IDENTITY = (
    *("cluster", "logger", "name", "tags", "device", "resume", "dry", "skip_invalid", "trusted_packages", "data_dir"),
    "trainer.keep_checkpoints",
)
OF_A_REFUSED_RUN = {"config.yaml", "overrides.yaml", "command.txt", "versions.json", "git.diff"}
OF_A_REFUSED_RUN |= {"log.txt", "status.json", "health.json", "metrics.jsonl", "timing.jsonl", "tensorboard", ".lock"}
BUDGET = ["trainer.max_steps"]  # the only value that may differ in a resumed run; it may only grow
BEFORE_THE_RUN = {"log.txt", "output.txt"}  # may lie in a folder whose run was killed before it wrote its config


def identity(config: Mapping[str, Any]) -> str:
    """Six hex digits that two runs share exactly if they compute the same thing; `config` is `Request.config`."""
    return hashlib.sha256(json.dumps(identifying(config), sort_keys=True).encode()).hexdigest()[:6]


def choose(config: Mapping[str, Any], directory: str) -> Path:
    """The folder of this request, which is not made yet; `directory` is hydra.run.dir."""
    if directory != AUTO:
        folder = Path(directory)
        _check_ours(folder, config)
        return folder
    home = Path("runs") / config["name"]
    if config["resume"]:
        return _newest(home, config)
    return home / f"{now()}-{identity(config)}{'-eval' if config['mode'] == 'eval' else ''}"


def make(folder: Path, fresh: bool = False) -> Path:
    """Make the folder, and fail now, not after an hour of training, if nothing can be written there.

    If two runs want the same `fresh` folder in the same second, one gets another number.
    """
    for place in _numbered(folder) if fresh else [folder]:
        try:
            place.mkdir(parents=True, exist_ok=not fresh)
            probe = place / f".{os.getpid()}.tmp"
            probe.touch()
            probe.unlink()
            return place
        except OSError as error:
            if fresh and isinstance(error, FileExistsError):
                continue
            raise BadRequest(
                f"cannot write to {place} ({error.strerror}); choose another place with hydra.run.dir=..."
            ) from error
    raise AssertionError("numbers do not run out")


def refuse_unwritable(folder: Path, key: str) -> None:
    """Check that the folder that `key` names can be made. An existing one may be read-only: it may hold all that is needed."""
    try:
        if folder.is_dir():
            return
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not there.is_dir():
            raise BadRequest(f"{key}={folder} cannot be a folder: {there} is a file; choose another {key}=...")
        os.rmdir(tempfile.mkdtemp(prefix=".iolaus-", dir=there))
    except OSError as error:
        raise BadRequest(f"cannot write to {key}={folder} ({error.strerror}); choose another {key}=...") from error


def free(folder: Path) -> Path:
    """The first of folder, folder-2, folder-3, ... that does not exist."""
    return next(place for place in _numbered(folder) if not place.exists())


def claim(folder: Path, config: Mapping[str, Any]) -> None:
    """Write config.yaml alone: the run of a sweep has not started yet. A stopped sweep thus shows which runs are missing."""
    if not (folder / "config.yaml").exists():
        _write(folder / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))


def holds_a_run(folder: Path) -> bool:
    """Whether a run has started there. A sweep claims the folder of a future run with a config.yaml alone."""
    return (folder / "overrides.yaml").exists() or (folder / "checkpoints").exists()


def refuse_other_run(folder: Path, config: Mapping[str, Any], checked: bool) -> None:
    """The last check before anything is written: the folder holds no other run. `checked`: our own code chose the folder and
    has checked that resuming was asked for."""
    if (folder / "config.yaml").exists():
        refuse_another(folder, config)
    if holds_a_run(folder) and not (checked or config["resume"]):
        raise BadRequest(f"{folder} holds a run already; add resume=true to go on with it, or choose another folder")


def withdraw(folder: Path) -> None:
    """Remove the folder of a request that was refused after it had one, unless it holds other files."""
    if {path.name for path in folder.iterdir()} <= OF_A_REFUSED_RUN:
        shutil.rmtree(folder)
        for parent in (folder.parent, folder.parent.parent):
            with suppress(OSError):  # not empty
                parent.rmdir()


def describe(folder: Path, config: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Write what the run is; what an earlier part of the same run wrote stays. config.yaml is first: it claims the folder."""
    if (folder / "config.yaml").exists() and differing(_saved(folder), config) == BUDGET:  # the budget grew, which was allowed
        (folder / "config.yaml").unlink()
    claim(folder, config)
    texts = {
        again.FILE: lambda: again.as_text(overrides),
        "command.txt": lambda: command(overrides) + "\n",
        "versions.json": lambda: json.dumps(of_this_process()[0], indent=2) + "\n",
        "git.diff": lambda: of_this_process()[1],
    }
    for name, text in texts.items():
        if not (folder / name).exists() and (written := text()):
            _write(folder / name, written)


def command(overrides: Sequence[str]) -> str:
    """A line for the shell that makes the same run again, in a fresh folder."""
    launch = Path(__file__).parents[1] / "launch.py"
    words = [word for word in overrides if not word.startswith(("resume=", "skip_invalid="))]
    if any(word.startswith(("study=", "cluster=")) for word in words):
        words.append("hydra.mode=RUN")  # one run of that sweep, here
    return f"cd {shlex.quote(os.getcwd())} && {shlex.join([sys.executable, str(launch), *config_flags(), *words])}"


def quoted(value: Path | str) -> str:
    """Quoted as one value in Hydra's override grammar, where `=` and commas have a meaning."""
    if re.fullmatch(r"[\w./+=,-]+", str(value)):
        return re.sub(r"([=,])", r"\\\1", str(value))
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def now() -> str:
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def identifying(config: Mapping[str, Any]) -> dict[str, Any]:
    left_out = {*NOT_IDENTITY, "hydra"}
    kept = {key: value for key, value in config.items() if key not in left_out}
    if isinstance(trainer := kept.get("trainer"), Mapping):
        kept["trainer"] = {key: value for key, value in trainer.items() if f"trainer.{key}" not in left_out}
    return kept


def _check_ours(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a folder that holds something, unless it is used to resume the run that made it."""
    if folder.exists() and not folder.is_dir():
        raise BadRequest(f"{folder} is a file; hydra.run.dir is the folder of a run")
    inside = {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.exists() else set()
    if not inside:
        return
    if "config.yaml" not in inside and not inside <= BEFORE_THE_RUN:
        raise BadRequest(f"{folder} is not empty and holds no run (there is no config.yaml); choose another hydra.run.dir")
    if not config["resume"]:
        raise BadRequest(f"{folder} is not empty; add resume=true to go on with its run, or choose another hydra.run.dir")
    if inside <= BEFORE_THE_RUN:
        return
    _refuse_links(folder)
    refuse_another(folder, config)


def refuse_another(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse to resume another run than the one in `folder`. Its budget may grow if the schedule does not depend on it."""
    before = _saved(folder)
    keys = differing(before, config)
    if keys == BUDGET:
        old, new = (one["trainer"]["max_steps"] for one in (before, config))
        schedule = config["trainer"]["schedule"]["name"]
        if new < old:
            raise BadRequest(f"the run in {folder} was given {old} steps; trainer.max_steps={new} cannot be fewer")
        if schedule == "cosine":
            raise BadRequest(
                f"the cosine schedule of the run in {folder} ends at its {old} steps, so it cannot go on to {new}; start another "
                f"run from its weights: init_from={folder}, without hydra.run.dir and resume"
            )
        return
    if keys:
        raise BadRequest(f"{folder} holds another run; it differs in {_listed(keys)}. Choose another hydra.run.dir")


def _refuse_links(folder: Path) -> None:
    """Refuse links: what this run writes could end up outside its folder. `last` and `best` are the run's own links."""
    for path in [*folder.iterdir(), *(folder / "checkpoints").glob("*"), *(folder / "media").glob("*")]:
        if path.is_symlink() and not (path.parent.name == "checkpoints" and path.name in ("last", "best")):
            raise BadRequest(
                f"{path} is a link; a run writes into its own folder alone, so remove the link or copy what it is to"
            )


def _newest(home: Path, config: Mapping[str, Any]) -> Path:
    """The newest run of this configuration: the last by name, because names begin with the time."""
    runs = sorted((path.parent for path in home.glob("*/config.yaml")), key=lambda run: run.name, reverse=True)
    wanted = identity(config)
    ours = [run for run in runs if f"-{wanted}" in run.name and identity(_saved(run)) == wanted]
    if ours:  # a run that failed before its first checkpoint must not hide an older one
        return next((run for run in ours if (run / "checkpoints/last").exists()), ours[0])
    nearest = [(run, differing(saved, config)) for run in runs if (saved := _saved(run)).get("mode") == config["mode"]]
    if nearest:
        run, keys = min(nearest, key=lambda one: len(one[1]))  # the newest of the nearest
        advice = f"; resume=true hydra.run.dir={run} goes on with that one" if keys == BUDGET else ""
        raise BadRequest(f"no run in {home} has this configuration; the nearest, {run.name}, differs in {_listed(keys)}{advice}")
    raise BadRequest(f"there is no run in {home} to resume; leave out resume=true, or name its folder with hydra.run.dir=...")


def _saved(folder: Path) -> dict[str, Any]:
    try:
        return read_yaml(folder / "config.yaml")
    except (OSError, Damaged) as error:
        raise BadRequest(f"cannot read {folder / 'config.yaml'} ({error}), so its run cannot be resumed") from error


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    a, b = dict(leaves(identifying(one))), dict(leaves(identifying(other)))
    return sorted(key for key in a.keys() | b.keys() if a.get(key, ...) != b.get(key, ...))


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")


def leaves(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _numbered(folder: Path) -> Iterator[Path]:
    yield folder
    for number in count(2):
        yield folder.with_name(f"{folder.name}-{number}")


def config_flags() -> list[str]:
    """The user's --config-dir and similar flags: the overrides may need them. The line's `cd` keeps relative paths valid."""
    return internals.config_flags(sys.argv[1:])


def _write(path: Path, text: str) -> None:
    """Write in one step: a reader sees the whole file or none."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8", errors="surrogateescape")
    os.replace(temporary, path)
