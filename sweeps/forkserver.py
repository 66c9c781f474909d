"""A process that has imported PyTorch, and forks itself for every run.

    in:  {"id": 3, "argv": ["launch.py", "seed=0"], "output": "runs/x/3/output.txt", "cwd": "...", "env": {...}}
         {"kill": 3, "signal": 15}
    out: {"id": 3, "pid": 123}    {"id": 3, "code": 0} (below 0: the signal)

It is itself forked from the launcher, which imported everything that the runs need when it checked them. A forked process whose
parent has used a second thread can hang forever (OpenMP), so the server is used only if the launcher has a single thread. When
the launcher dies, the server asks the runs to save and stop; when the server dies, the kernel asks them. Linux only.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import logging
import os
import runpy
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

GRACE = 60.0  # seconds that the runs of a dead launcher have to save
PR_SET_PDEATHSIG = 1
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def serve(requests: int, answers: int) -> None:
    """In the forked process, until `requests` is closed; does not return."""
    code = 1
    try:
        os.setsid()  # only the launcher gets Ctrl-C
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        gc.freeze()  # the collector must not touch shared memory, which would copy it
        signals, wake = os.pipe()
        for end in (signals, wake):
            os.set_blocking(end, False)
        for number in SIGNALS:  # SLURM sends its signals to every process of a job; this one ends with its launcher
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        _serve(requests, answers, signals)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _serve(requests: int, answers: int, signals: int) -> None:
    selector = selectors.DefaultSelector()
    selector.register(requests, selectors.EVENT_READ)
    selector.register(signals, selectors.EVENT_READ)
    running: dict[int, int] = {}  # pid -> id
    rest = b""
    while True:
        for key, _ in selector.select():
            if key.fd == signals:
                os.read(signals, 4096)
                continue
            data = os.read(requests, 1 << 16)
            if not data:
                return _stop(running)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                _obey(json.loads(line), running, selector, answers)
        while running and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            _say(answers, id=running.pop(ended[0]), code=os.waitstatus_to_exitcode(ended[1]))


def _obey(request: dict[str, Any], running: dict[int, int], selector: selectors.BaseSelector, answers: int) -> None:
    if "kill" in request:
        for pid, number in running.items():
            if number == request["kill"]:
                _signal(pid, request["signal"])
        return
    if (pid := os.fork()) == 0:
        selector.close()
        os.close(answers)
        _run(request)
    running[pid] = request["id"]
    _say(answers, id=request["id"], pid=pid)


def _run(request: dict[str, Any]) -> None:
    """In the new process: behave as if Python had just been started with this command line. Does not return."""
    os.setsid()  # its own process group, so that it can be ended with all its children
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGUSR1, signal.SIGUSR2):  # these would kill the run before it has its own handlers
        signal.signal(number, signal.SIG_IGN)
    end_as_python(lambda: _run_script(request))


def _run_script(request: dict[str, Any]) -> None:
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w", buffering=1), open(2, "w", buffering=1)  # noqa: SIM115
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    _forget_the_launcher()
    sys.argv = list(request["argv"])
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")


def end_as_python(program: Callable[[], None]) -> NoReturn:
    """Run the program of a forked process, and end the process as Python would: with the traceback of an exception, the functions
    registered by `atexit`, flushed output and the program's exit code, but without what the parent process had still to do."""
    code = 1
    try:
        program()
        code = 0
    except SystemExit as exit:
        if isinstance(exit.code, str):
            print(exit.code, file=sys.stderr)
        code = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code & 255)


def _stop(running: dict[int, int]) -> None:
    """The launcher is gone: the runs save and stop, and none remains."""
    for pid in running:
        _signal(pid, signal.SIGTERM)
    until = time.monotonic() + GRACE
    while running and time.monotonic() < until:
        pid, _ = os.waitpid(-1, os.WNOHANG)
        running.pop(pid, None) if pid else time.sleep(0.05)
    for pid in running:
        _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:  # it has just been forked and has no process group yet
        os.kill(pid, number)


def _forget_the_launcher() -> None:
    """Hydra has global state, and this process has composed a sweep with it: reset it."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None
    logging.getLogger().handlers.clear()


def _say(answers: int, **words: Any) -> None:
    os.write(answers, (json.dumps(words) + "\n").encode())
