"""The run folder: which one a request gets, and what stands in it before the first step.

    config.yaml     the resolved configuration       command.txt     paste it to run it again
    overrides.yaml  what was asked for               versions.json   Python, packages, git commit

A plain run gets `runs/<name>/<time>-<identity>`. The identity is the same for every run of the same configuration, so
`resume=true` can find the one to go on with, and a folder can refuse a run that is not its own.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from conf.errors import BadRequest

AUTO = "auto"  # hydra.run.dir and hydra.sweep.dir until we choose a folder
# Where a run happens, what it is called and how it was started: none of it changes what is computed.
NOT_IDENTITY = ("cluster", "logger", "name", "tags", "device", "resume", "dry", "skip_invalid", "trusted_packages", "data_dir")
PACKAGES = ("iolaus", "torch", "numpy", "hydra-core", "omegaconf", "gymnasium", "minigrid", "safetensors", "tensorboard")
BEFORE_THE_RUN = {"log.txt", "output.txt"}  # may lie in a folder whose run was killed before it wrote its config


def identity(config: Mapping[str, Any]) -> str:
    """Six hex digits that two runs share exactly if they compute the same thing; `config` is `Request.config`."""
    return hashlib.sha256(json.dumps(identifying(config), sort_keys=True).encode()).hexdigest()[:6]


def choose(config: Mapping[str, Any], directory: str) -> Path:
    """The folder of this request; `directory` is hydra.run.dir. Nothing is made yet."""
    if directory != AUTO:
        folder = Path(directory)
        _check_ours(folder, config)
        return folder
    home = Path("runs") / config["name"]
    if config["resume"]:
        return _newest(home, config)
    return home / f"{now()}-{identity(config)}"


def make(folder: Path, fresh: bool = False) -> Path:
    """Make the folder, and learn now rather than after an hour of training that nothing can be written there.

    Of two runs that want the same `fresh` folder in the same second, one gets another number.
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


def claim(folder: Path, config: Mapping[str, Any]) -> None:
    """Alone, it is a run of a sweep that is still to come: whoever looks at a stopped sweep sees what is missing."""
    if not (folder / "config.yaml").exists():
        _write(folder / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))


def describe(folder: Path, config: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Write what the run is; what an earlier part of the same run wrote stays. config.yaml comes first: it claims the folder.

    Another sweeper or launcher chooses folders without asking us: one that holds another run is refused here at the latest.
    """
    if (folder / "config.yaml").exists():
        _refuse_another(folder, config)
    claim(folder, config)
    texts = {
        "overrides.yaml": lambda: yaml.safe_dump(list(overrides)),
        "command.txt": lambda: command(overrides) + "\n",
        "versions.json": lambda: json.dumps(versions(), indent=2) + "\n",
    }
    for name, text in texts.items():
        if not (folder / name).exists():
            _write(folder / name, text())


def command(overrides: Sequence[str]) -> str:
    """A line for the shell that makes the same run again, in a fresh folder."""
    launch = Path(__file__).parents[1] / "launch.py"
    again = [word for word in overrides if not word.startswith(("resume=", "skip_invalid="))]
    if any(word.startswith(("study=", "cluster=")) for word in again):
        again.append("hydra.mode=RUN")  # one run of that sweep, here
    return f"cd {shlex.quote(os.getcwd())} && {shlex.join([sys.executable, str(launch), *config_flags(), *again])}"


def quoted(value: Path | str) -> str:
    """As one value in Hydra's override grammar, where `=` and commas mean something."""
    if re.fullmatch(r"[\w./+=,-]+", str(value)):
        return re.sub(r"([=,])", r"\\\1", str(value))
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def versions() -> dict[str, Any]:
    found: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return {**found, **_git()}


def now() -> str:
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def identifying(config: Mapping[str, Any]) -> dict[str, Any]:
    left_out = {*NOT_IDENTITY, "hydra"}
    return {key: value for key, value in config.items() if key not in left_out}


def _check_ours(folder: Path, config: Mapping[str, Any]) -> None:
    """A folder that holds something is used only to resume the very run that made it."""
    if folder.exists() and not folder.is_dir():
        raise BadRequest(f"{folder} is a file; hydra.run.dir is the folder of a run")
    inside = {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.exists() else set()
    if not inside:
        return
    if not config["resume"]:
        raise BadRequest(f"{folder} is not empty; add resume=true to go on with its run, or choose another hydra.run.dir")
    if inside <= BEFORE_THE_RUN:
        return
    if "config.yaml" not in inside:
        raise BadRequest(f"{folder} holds no run (there is no config.yaml), so there is nothing to resume")
    _refuse_another(folder, config)


def _refuse_another(folder: Path, config: Mapping[str, Any]) -> None:
    if keys := _differing(_saved(folder), config):
        raise BadRequest(f"{folder} holds another run; it differs in {_listed(keys)}. Choose another hydra.run.dir")


def _newest(home: Path, config: Mapping[str, Any]) -> Path:
    """The newest run of this configuration: names begin with the time, so the last by name."""
    runs = sorted((path.parent for path in home.glob("*/config.yaml")), key=lambda run: run.name, reverse=True)
    wanted = identity(config)
    ours = [run for run in runs if f"-{wanted}" in run.name and identity(_saved(run)) == wanted]
    if ours:  # one that failed before its first checkpoint must not hide the one before it
        return next((run for run in ours if (run / "checkpoints/last").exists()), ours[0])
    for run in runs:
        if (saved := _saved(run)).get("mode") == config["mode"]:
            keys = _listed(_differing(saved, config))
            raise BadRequest(f"no run in {home} has this configuration; the newest, {run.name}, differs in {keys}")
    raise BadRequest(f"there is no run in {home} to resume; leave out resume=true, or name its folder with hydra.run.dir=...")


def _saved(folder: Path) -> dict[str, Any]:
    try:
        saved = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    except (OSError, yaml.YAMLError) as error:
        raise BadRequest(f"cannot read {folder / 'config.yaml'}, so its run cannot be resumed") from error
    return {str(key): value for key, value in saved.items()} if isinstance(saved, dict) else {}


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
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
    """The user's own --config-dir and the like, made absolute by `cd`; the overrides alone would not find his options."""
    from hydra._internal.utils import get_args_parser

    given, _ = get_args_parser().parse_known_args(sys.argv[1:])
    flags = {"--config-dir": given.config_dir, "--config-path": given.config_path, "--config-name": given.config_name}
    return [word for flag, value in flags.items() if value for word in (flag, value)]


def _git() -> dict[str, Any]:
    """The commit of the code that runs, where it is a checkout."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changes = git("status", "--porcelain")
    return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": None if changes is None else bool(changes)}


def _write(path: Path, text: str) -> None:
    """In one step: a reader sees the whole file or none."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)
