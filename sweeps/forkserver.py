"""A process that imports PyTorch once, and then makes a fresh process out of itself for every run.

    in:  {"id": 3, "argv": ["launch.py", "seed=0"], "output": "runs/x/3/output.txt", "cwd": "...", "env": {...}}
         {"kill": 3, "signal": 15}    {"import": ["policies.bc_mlp"]}
    out: {"ready": true, "threads": 1, "missing": []}    {"id": 3, "pid": 123}    {"id": 3, "code": 0} (below 0: the signal)

A forked process whose parent had used a second thread can hang for ever (OpenMP), so the server says how many it has, and
whoever started it does not use it unless that is one. When the launcher dies its runs are asked to save and stop; when the
server itself dies the kernel asks them. Linux only.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import sys
import time
import traceback
from typing import Any

GRACE = 60.0  # seconds that the runs of a dead launcher have to save
PR_SET_PDEATHSIG = 1


def main(modules: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's
    signals, wake = os.pipe()
    for end in (signals, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    _get_ready(modules)
    _serve(signals)


def _get_ready(modules: list[str]) -> None:
    missing = [name for name in modules if not _imported(name)]
    gc.collect()
    gc.freeze()  # the collector must not touch, and so copy, what all runs share
    _say(ready=True, threads=len(os.listdir("/proc/self/task")), missing=missing)


def _serve(signals: int) -> None:
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(signals, selectors.EVENT_READ)
    running: dict[int, int] = {}  # pid -> id
    rest = b""
    while True:
        for key, _ in selector.select():
            if key.fd == signals:
                os.read(signals, 4096)
                continue
            data = os.read(0, 1 << 16)
            if not data:
                return _stop(running)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                _obey(json.loads(line), running, selector)
        while running and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            _say(id=running.pop(ended[0]), code=os.waitstatus_to_exitcode(ended[1]))


def _obey(request: dict[str, Any], running: dict[int, int], selector: selectors.BaseSelector) -> None:
    if "kill" in request:
        for pid, number in running.items():
            if number == request["kill"]:
                _signal(pid, request["signal"])
        return
    if "import" in request:
        return _get_ready(request["import"])
    if (pid := os.fork()) == 0:
        selector.close()
        _run(request)
    running[pid] = request["id"]
    _say(id=request["id"], pid=pid)


def _run(request: dict[str, Any]) -> None:
    """In the new process: as if Python had just been started with this command line. Does not return."""
    os.setsid()  # a group of its own: it can be ended with all that it started
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGUSR1, signal.SIGUSR2):  # would kill it until the run has handlers of its own
        signal.signal(number, signal.SIG_IGN)
    code = 1
    try:
        output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w", buffering=1), open(2, "w", buffering=1)  # noqa: SIM115
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
        sys.argv = list(request["argv"])
        sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as exit:
        if isinstance(exit.code, str):
            print(exit.code, file=sys.stderr)
        code = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            import atexit

            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code & 255)


def _stop(running: dict[int, int]) -> None:
    """The launcher is gone: the runs save and stop, and none stays behind."""
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
    except ProcessLookupError:  # it has just been forked and has no group of its own yet
        os.kill(pid, number)


def _imported(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def _say(**words: Any) -> None:
    os.write(1, (json.dumps(words) + "\n").encode())


if __name__ == "__main__":
    main(sys.argv[1:])
