"""A sweep is checked as a whole: every run is composed and checked before the first one starts.

`hydra_plugins/iolaus_sweeper` calls `checked` with the grid that Hydra's own sweeper made.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, read_write

from conf import folder
from conf.check import typed
from conf.errors import BadRequest, Exit
from conf.folder import quoted
from conf.sentences import explain

ONE_A_SWEEP = {
    "cluster": "one sweep goes to one cluster",
    "study": "one sweep is one study",
    "skip_invalid": "it is about the whole sweep",
    "dry": "it is about the whole sweep",
}
LONGEST_SLUG = 80  # a folder's name may have 255 bytes, and somebody has to read it


def refuse_swept_machinery(config: DictConfig) -> None:
    """What decides where a sweep runs is read once, before the grid is made; Hydra would silently ignore the rest of a list."""
    if config.resume and config.hydra.sweep.dir == folder.AUTO:
        raise BadRequest("resume=true of a sweep needs the sweep's folder: add hydra.sweep.dir=runs/...")
    asked = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    for override in OverridesParser.create().parse_overrides([*asked, *config.hydra.overrides.task]):
        reason = ONE_A_SWEEP.get(override.get_key_element().lstrip("+"))
        if reason and override.is_sweep_override():
            raise BadRequest(f"{override.input_line} cannot be swept: {reason}; launch one after the other")


def checked(master: DictConfig, runs: Sequence[Sequence[str]], loader: ConfigLoader) -> list[list[str]]:
    """The runs that can run, each with the folder it gets; BadRequest with every run that cannot, unless skip_invalid=true."""
    home = _home(master)
    valid: dict[str, Sequence[str]] = {}  # folder -> overrides
    configs: dict[str, dict[str, Any]] = {}
    invalid: list[str] = []
    swept = _swept(runs)
    for number, overrides in enumerate(runs):
        try:
            run = loader.load_sweep_config(master, list(overrides))
            HydraConfig.instance().set_config(run)
            _refuse_own_machinery(master, run)
            request = typed(run)
            request.refuse_unready()
            config = request.config
            slug = f"{_slug([overrides[i] for i in swept])}-{folder.identity(config)}".lstrip("-")
            slug = slug if slug not in valid else f"{slug}-{number}"
            folder.choose(config, str(home / slug))
        except Exception as error:
            if (sentence := explain(error)) is None:
                raise
            invalid.append(f"  #{number} {' '.join(overrides)}\n     {sentence}")
        else:
            valid[slug], configs[slug] = overrides, config
            if master.dry:
                print(f"#{number} {' '.join(overrides)}\n   {home / slug}")
    HydraConfig.instance().set_config(master)
    if invalid and (not master.skip_invalid or not valid):
        advice = f"; add skip_invalid=true to run the other {len(valid)}" if valid else ""
        listed = "\n".join(invalid)
        raise BadRequest(f"{len(invalid)} of {len(runs)} runs cannot run, so nothing was launched{advice}\n{listed}")
    if invalid:
        print(f"left out {len(invalid)} of {len(runs)} runs that cannot run:\n" + "\n".join(invalid), file=sys.stderr)
    if master.dry:
        sys.exit(Exit.DONE)
    home = folder.make(home, fresh=master.hydra.sweep.dir == folder.AUTO)
    with read_write(master.hydra):
        master.hydra.sweep.dir = str(home)
    for slug, config in configs.items():
        folder.claim(folder.make(home / slug), config)
    return [
        [*overrides, f"hydra.sweep.dir={quoted(home)}", f"hydra.sweep.subdir={quoted(slug)}"] for slug, overrides in valid.items()
    ]


def _home(master: DictConfig) -> Path:
    """The folder that holds the runs' folders."""
    if master.hydra.sweep.dir != folder.AUTO:
        return Path(master.hydra.sweep.dir)
    name = master.hydra.runtime.choices.get("study") or master.name or "sweep"
    return Path("runs") / str(name) / folder.now()


def _refuse_own_machinery(master: DictConfig, run: DictConfig) -> None:
    """A swept experiment that brings its own cluster or grid: the sweep was set up before it was read."""
    for part in ("launcher", "sweeper"):
        if _plain(run.hydra[part]) != _plain(master.hydra[part]):
            experiment = run.hydra.runtime.choices.get("experiment")
            raise BadRequest(
                f"experiment={experiment} sets hydra.{part} (cluster=, study= or its own), which a sweep over experiments "
                f"ignores; say it on the command line, or launch this experiment by itself"
            )


def _plain(node: DictConfig) -> Any:
    return OmegaConf.to_container(node, resolve=False)


def _swept(runs: Sequence[Sequence[str]]) -> list[int]:
    """Which of a run's overrides make it different from the other runs; all of them have their overrides in one order."""
    return [i for i, values in enumerate(zip(*runs, strict=True)) if len(set(values)) > 1]


def _slug(overrides: Sequence[str]) -> str:
    """What a run's folder says about it: what sets it apart, as far as a file name goes."""
    return re.sub(r"[^\w.,=+-]+", "_", ",".join(overrides)).strip("_,+")[:LONGEST_SLUG]
