"""A sweep is checked as a whole: every run is composed and checked before the first one starts.

`hydra_plugins/iolaus_sweeper` calls `checked` with the grid that Hydra's own sweeper made.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, read_write

from conf import clusters, folder, ranks, together
from conf.check import Request, typed
from conf.compose import Composer
from conf.errors import BadRequest
from conf.folder import quoted
from conf.overrides import parsed, refuse_wrong_grid
from conf.sentences import explain

ONE_A_SWEEP = {
    "cluster": "one sweep goes to one cluster",
    "study": "one sweep is one study",
    "skip_invalid": "it is about the whole sweep",
    "dry": "it is about the whole sweep",
}
OWN_SWEEPERS = "hydra_plugins.iolaus_"
OWN_LAUNCHERS = ("hydra_plugins.iolaus_launchers.", "hydra._internal.core_plugins.")
LONGEST_SLUG = 80  # a folder's name may have 255 bytes, and people read it


def prepare(config: DictConfig) -> None:
    """Called before any sweeper sees the config: refuses what cannot be swept, and replaces `auto` by a folder.

    Values that decide where a sweep runs are read once, before the grid is made; Hydra would silently ignore the rest of a list.
    """
    asked = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    typed_or_asked = {override.key_or_group: override for override in parsed([*asked, *config.hydra.overrides.task])}
    refuse_wrong_grid(typed_or_asked.values())
    for override in typed_or_asked.values():
        reason = ONE_A_SWEEP.get(override.get_key_element().lstrip("+").split(".")[0])
        if reason and override.is_sweep_override():
            raise BadRequest(f"{override.input_line} cannot be swept: {reason}; launch one after the other")
    if config.hydra.sweep.dir == folder.AUTO and not _is_ours(config.hydra):
        with read_write(config.hydra):  # ours decide when the grid, or the space, says whether this sweep exists already
            config.hydra.sweep.dir = str(_named(config) or _parent(config) / folder.now())
            # Each run is composed again from its overrides: without this one, other sweepers' runs would get `auto` again.
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(config.hydra.sweep.dir)}")


def _is_ours(hydra: Any) -> bool:
    """Whether the sweeper is ours, and the launcher ours or Hydra's own, so that the sweep's folder can be decided later."""
    launcher = str(hydra.launcher.get("_target_"))
    return str(hydra.sweeper.get("_target_")).startswith(OWN_SWEEPERS) and launcher.startswith(OWN_LAUNCHERS)


def checked(
    master: DictConfig, runs: Sequence[Sequence[str]], loader: ConfigLoader, label: Sequence[str] | None = None
) -> list[list[str]]:
    """The valid runs, each with its folder; BadRequest that lists every invalid run, unless skip_invalid=true.

    `label` names the folder of a run that comes alone, as those of a search do.
    """
    processes = clusters.processes(OmegaConf.to_container(master.hydra.launcher, resolve=True))
    composer = Composer(loader, master.hydra.job.config_name)
    valid: list[tuple[Sequence[str], dict[str, Any]]] = []
    requests: list[Request] = []
    invalid: list[str] = []
    for number, overrides in enumerate(runs):
        try:
            run = composer([*master.hydra.overrides.hydra, *overrides])
            OmegaConf.copy_cache(master, run)  # one `${now:}` for the whole sweep
            _refuse_own_machinery(master, HydraConfig.get())
            request = typed(run)
            request.refuse_unready()
            ranks.refuse(request, processes)
            valid.append((overrides, {**request.config, "resume": True}))
            requests.append(request)
        except Exception as error:
            if (sentence := explain(error)) is None:
                raise
            invalid.append(f"  #{number} {' '.join(overrides)}\n     {sentence}")
    HydraConfig.instance().set_config(master)
    if invalid and (not master.skip_invalid or not valid):
        advice = f"; add skip_invalid=true to run the other {len(valid)}" if valid else ""
        listed = "\n".join(invalid)
        raise BadRequest(f"{len(invalid)} of {len(runs)} runs cannot run, so nothing was launched{advice}\n{listed}")
    if invalid:
        print(f"left out {len(invalid)} of {len(runs)} runs that cannot run:\n" + "\n".join(invalid), file=sys.stderr)
    if (size := master.hydra.launcher.get("together") or 1) > 1:
        if label is not None:
            raise BadRequest("a search tries one setting after the other, so cluster.together cannot be; leave it out")
        together.refuse(requests, size)
    home = _home(master, [config for _, config in valid])
    words = _told_apart([overrides for overrides, _ in valid]) if label is None else [label]
    slugs = _slugs(home, words, [config for _, config in valid])
    for slug, (_, config) in zip(slugs, valid, strict=True):
        folder.choose(config, str(home / slug))  # refuses one that holds something else
    if master.dry:
        for number, (slug, (overrides, _)) in enumerate(zip(slugs, valid, strict=True)):
            print(f"#{number} {' '.join(overrides)}\n   {home / slug}")
    else:
        folder.make(home)
        with read_write(master.hydra):
            master.hydra.sweep.dir = str(home)
        for slug, (_, config) in zip(slugs, valid, strict=True):
            folder.claim(folder.make(home / slug), {**config, "resume": False})
    return [
        [*overrides, f"hydra.sweep.dir={quoted(home)}", f"hydra.sweep.subdir={quoted(slug)}"]
        for slug, (overrides, _) in zip(slugs, valid, strict=True)
    ]


def _home(master: DictConfig, configs: Sequence[dict[str, Any]]) -> Path:
    """The folder that holds the runs' folders: the same for the same study, or for the same grid."""
    if home := _named(master):
        return home
    mark = hashlib.sha256(" ".join(sorted({folder.identity(config) for config in configs})).encode()).hexdigest()[:6]
    parent = _parent(master)
    before = sorted(path.parent for path in parent.glob(f"*-{mark}/sweep.json"))
    return before[-1] if before else parent / f"{folder.now()}-{mark}"


def _named(master: DictConfig) -> Path | None:
    if master.hydra.sweep.dir != folder.AUTO:
        return Path(master.hydra.sweep.dir)
    study = master.hydra.runtime.choices.get("study")
    return Path("runs") / str(study) if study else None


def _parent(master: DictConfig) -> Path:
    return Path("runs") / str(master.name or "sweep")


def _slugs(home: Path, words: Sequence[Sequence[str]], configs: Sequence[dict[str, Any]]) -> list[str]:
    """The folder of each run: the one it has from any earlier sweep, or a new one that says what sets it apart."""
    there = sorted(path.name for path in home.iterdir() if (path / "config.yaml").exists()) if home.is_dir() else []
    chosen: list[str] = []
    for number, (swept, config) in enumerate(zip(words, configs, strict=True)):
        mark = folder.identity(config)
        slug = f"{_slug(swept)}-{mark}".lstrip("-")
        own = [name for name in there if name == slug] or [name for name in there if name.endswith(f"-{mark}") or name == mark]
        own = [name for name in own if name not in chosen]
        chosen.append(own[0] if own else slug if slug not in chosen else f"{slug}-{number}")
    return chosen


def _refuse_own_machinery(master: DictConfig, hydra: Any) -> None:
    """Refuse a swept experiment that sets its own cluster or grid: the sweep is set up before the experiment is read."""
    for part in ("launcher", "sweeper"):
        if _plain(hydra[part]) != _plain(master.hydra[part]):
            experiment = hydra.runtime.choices.get("experiment")
            raise BadRequest(
                f"experiment={experiment} sets hydra.{part} (cluster=, study= or its own), which a sweep over experiments "
                f"ignores; say it on the command line, or launch this experiment by itself"
            )


def _plain(node: DictConfig) -> Any:
    return OmegaConf.to_container(node, resolve=False)


def _told_apart(runs: Sequence[Sequence[str]]) -> list[list[str]]:
    """The overrides of each run that not all runs share; all runs have them in the same order."""
    swept = [i for i, values in enumerate(zip(*runs, strict=True)) if len(set(values)) > 1]
    return [[overrides[i] for i in swept] for overrides in runs]


def _slug(overrides: Sequence[str]) -> str:
    """The name of a run's folder: what sets the run apart, shortened to a file name."""
    return re.sub(r"[^\w.,=+-]+", "_", ",".join(overrides)).strip("_,+")[:LONGEST_SLUG]
