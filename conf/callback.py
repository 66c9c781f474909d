"""Hydra's hooks: called before a run has a folder, and before the first run of a sweep."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, read_write

from conf import folder, multirun, ranks
from conf.check import Request, typed
from conf.device import pick
from conf.errors import BadRequest, Exit
from conf.ranks import here
from conf.sentences import report


class Check(Callback):
    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        with _only_exits():
            _refuse_sweeper(config.hydra.overrides.hydra)
            HydraConfig.instance().set_config(config)  # as the run itself will see it: `${hydra:...}` resolves
            request = typed(config)
            pick(request.device)  # this run is computed on this machine; a sweep's runs may go elsewhere
            request.refuse_unready()
            ranks.refuse(request, here().count)
            if here().rank and request.dry:
                sys.exit(Exit.DONE)
            place = _chosen(request, config.hydra.run.dir) if here().alone else _of_first(request, config.hydra.run.dir)
            with read_write(config.hydra):
                config.hydra.run.dir = place

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        with _only_exits():
            multirun.prepare(config)


def _refuse_sweeper(overrides: Sequence[str]) -> None:
    for word in overrides:
        if word.startswith("hydra/sweeper="):
            raise BadRequest(f"{word} is for many runs, and this command is a single one; add -m")


def _chosen(request: Request, directory: str) -> str:
    """The folder of the run, made."""
    place = folder.choose(request.config, directory)
    if request.dry:
        print(yaml.safe_dump(request.config, sort_keys=False) + f"\n# would run in {place}")
        sys.exit(Exit.DONE)
    return str(folder.make(place, fresh=directory == folder.AUTO and not request.resume))


def _of_first(request: Request, directory: str) -> str:
    """Of several processes, the first chooses."""
    from trainers.loop import processes

    made = _chosen(request, directory) if here().rank == 0 else None  # before they meet: refused, it leaves without them
    processes.start()
    return str(processes.gathered(made)[0])


@contextmanager
def _only_exits() -> Iterator[None]:
    """Hydra turns what a callback raises into a warning and goes on with the run; only SystemExit stops it."""
    try:
        yield
    except Exception as error:
        try:
            code = report(error)
        except Exception:
            traceback.print_exc()
            code = Exit.FAILED
        sys.exit(code)
