"""`cluster.together=N`: groups of runs that are trained in one process, and what that process does first.

Its command line is `launch.py --together '[["seed=0", ...], ["seed=1", ...]]'`: the overrides of each run, as if it were alone.
"""

from __future__ import annotations

import functools
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from conf import folder, internals, status
from conf.check import typed
from conf.compose import Composer
from conf.errors import BadRequest, Exit
from conf.sentences import report
from sweeps.pool import Run

FLAG = "--together"


def grouped(runs: Sequence[Run], size: int) -> list[Run]:
    """The runs in as few groups of at most `size` as possible, about equally large. A group of one is that run itself."""
    groups = -(-len(runs) // size)
    bounds = [len(runs) * number // groups for number in range(groups + 1)]
    return [_group(runs[begin:end]) for begin, end in itertools.pairwise(bounds)]


def _group(runs: Sequence[Run]) -> Run:
    if len(runs) == 1:
        return runs[0]
    launch, words = runs[0].command[0], [run.command[1:] for run in runs]
    return replace(runs[0], command=[launch, FLAG, json.dumps(words)], others=list(runs[1:]))


def main(text: str) -> int:
    """Train a group, in its process."""
    launch, runs, places = sys.argv[0], [], []
    try:
        for words in json.loads(text):
            sys.argv = [launch, *words]  # from here on as if this run were alone
            request, place, label = _composed(words)
            if status.read(place).get("status") == "done":  # the others of the group are not
                continue
            runs.append((request, place, label))
            places.append(place)
        from trainers import together  # torch comes with it

        return together.main(runs) if runs else Exit.DONE
    except (BadRequest, OSError) as error:
        for place in places:
            if status.read(place).get("status") in (None, "pending"):
                status.update(place, status="failed", exit_code=int(Exit.BAD_REQUEST), reason=str(error))
        return report(error)


@functools.cache
def _composer(path: str | None, directory: str | None, name: str) -> Composer:
    return Composer(internals.loader(path, directory), name)


def _composed(words: Sequence[str]) -> tuple[Any, Path, str]:
    """One run's request, its folder, which is made here and described, and its label."""
    flags = internals.flags(words)
    config = _composer(flags.config_path, flags.config_dir, flags.config_name or "config")(flags.overrides)
    place = Path(HydraConfig.get().run.dir)
    request = typed(config)
    request.refuse_unready()
    folder.choose(request.config, str(place))
    folder.refuse_other_run(place, request.config, checked=True)
    folder.describe(folder.make(place), request.config, HydraConfig.get().overrides.task)
    return request, place, place.name.rpartition("-")[0] or place.name
