"""`python -m sweeps status | resume | cancel`: manage a sweep from another terminal, also later."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from conf.errors import BadRequest, Exit
from sweeps import launching
from sweeps.state import FAILED, State, newest_sweep, of_sweep
from sweeps.table import console, headline, table

PATIENCE = 90.0  # seconds that `cancel` waits for runs to save


def status(folder: Path | None, follow: bool = False) -> int:
    """Show the state of every run, why runs failed, and the command that continues the sweep."""
    home = sweep_folder(folder)
    screen = console()
    while True:
        states = states_of(home)
        screen.print(f"\n{home}: {headline(states)}", markup=False, soft_wrap=True)
        screen.print(table(states))
        going = [state for state in states if state.going]
        if not (follow and going):
            break
        time.sleep(5)
    for state in states:
        if state.status in FAILED:
            screen.print(f"{state.status}: {state.folder}\n    {state.reason}", markup=False, soft_wrap=True)
    if not going and any(state.status != "done" for state in states):
        screen.print(f"to go on: python -m sweeps resume {shlex.quote(str(home))}", markup=False, soft_wrap=True)
    return Exit.DONE


def resume(folder: Path | None, words: Sequence[str]) -> int:
    """Run the sweep's own commands again, with `words` added. Finished runs are skipped, the others continue."""
    home = sweep_folder(folder)
    commands = launching.recorded(home)
    if not commands:
        raise BadRequest(f"{home} does not say how it was launched; give that command again")
    code = 0
    for command in commands:
        argv = [sys.executable, *command["argv"], *words]
        if not any(word.startswith("hydra.sweep.dir=") for word in argv):
            argv.append(f"hydra.sweep.dir={launching.quoted(home.absolute())}")
        print(shlex.join(["python", *argv[1:]]), flush=True)
        code = max(code, subprocess.run(argv, cwd=command["cwd"]).returncode)
    return code


def cancel(folder: Path | None) -> int:
    """Running runs save a checkpoint and stop; waiting ones do not start."""
    home = sweep_folder(folder)
    states = states_of(home)
    jobs = sorted(
        {str(state.values["job"]) for state in states if state.status in ("running", "queued") and state.values.get("job")}
    )
    if jobs:
        subprocess.run(["scancel", *jobs])  # it reports jobs that have already ended, and cancels the others
    if (pid := launching.launcher_of(home)) is not None:
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(pid, signal.SIGTERM)  # it stops its runs
    for state in states:
        here = state.values.get("host") == socket.gethostname()
        if state.status == "running" and here and not state.values.get("job"):
            with suppress(ProcessLookupError):
                os.kill(state.values["pid"], signal.SIGTERM)
    until = time.monotonic() + PATIENCE
    while (left := [state for state in states if state.going]) and time.monotonic() < until:
        time.sleep(0.5)
        states = states_of(home)
    print(headline(states))
    for state in left:
        print(f"still {state.status}: {state.folder}", file=sys.stderr)
    return Exit.FAILED if left else Exit.DONE


def sweep_folder(folder: Path | None) -> Path:
    home = newest_sweep() if folder is None else folder
    if not home.is_dir():
        raise BadRequest(f"{home} does not exist; give the folder of a sweep, runs/STUDY or runs/NAME/TIME")
    if (home / "config.yaml").exists():
        raise BadRequest(f"{home} is the folder of one run; a sweep's folder has such a folder for each of its runs")
    return home


def states_of(home: Path) -> list[State]:
    states = of_sweep(home)
    if not states:
        raise BadRequest(f"{home} holds no runs; give the folder of a sweep, runs/STUDY or runs/NAME/TIME")
    return states
