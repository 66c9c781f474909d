"""`python launch.py ...` without the seconds that importing PyTorch takes: every command is forked from a process that has.

It is what a fresh Python would be: a process of its own with its own command line, folder, environment, output and exit code.
Only the imports are older than it, so tests of what is imported, and when, start a Python. `Forked` is used as `subprocess` is.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import pkgutil
import re
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

ROOT = Path(__file__).parents[1]
PACKAGES = ("policies", "envs.minigrid", "envs.darkroom", "envs.data", "trainers", "sweeps", "conf")  # ours, with all modules
OTHERS = ("hydra.main", "minigrid", "torch._dynamo", "torch.utils.tensorboard", "PIL.GifImagePlugin")
PATIENCE = 300.0  # seconds that a command may take, unless the test says otherwise
PR_SET_PDEATHSIG = 1
# For trainer.compile, read as PyTorch is imported: code without vector instructions compiles in half the time, and a single
# process need not start others that import PyTorch.
QUICK_COMPILE = {"TORCHINDUCTOR_VEC_ISA_OK": "0", "TORCHINDUCTOR_COMPILE_THREADS": "1"}


class Process:
    """Like `subprocess.Popen`, with its output in files."""

    def __init__(self, server: Forked, pid: int, args: list[str], files: tuple[IO[str], IO[str]]):
        self.server, self.pid, self.args, self.files = server, pid, args, files
        self.handle = os.pidfd_open(pid)  # readable once it has ended
        self.returncode: int | None = None

    def poll(self, seconds: float = 0) -> int | None:
        if self.returncode is None and select.select([self.handle], [], [], seconds)[0]:
            self.returncode = self.server.ask(wait=self.pid)
            os.close(self.handle)
        return self.returncode

    def wait(self, timeout: float = PATIENCE) -> int:
        if (code := self.poll(timeout)) is None:
            os.killpg(self.pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(self.args, timeout, *(self._read(file) for file in self.files))
        return code

    def communicate(self, timeout: float = PATIENCE) -> tuple[str, str]:
        self.wait(timeout)
        out, err = (self._read(file) for file in self.files)
        return out, err

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _read(self, file: IO[str]) -> str:
        file.seek(0)
        return file.read()


class Forked:
    """The process that has imported everything; tests fork theirs from it. It ends with the tests."""

    def __init__(self) -> None:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error", **QUICK_COMPILE}
        self.server = subprocess.Popen([sys.executable, __file__], cwd=ROOT, env=environment, **pipes)
        self.processes: list[Process] = []

    def start(self, command: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None, merged: bool = True) -> Process:
        """`command` begins with the path of Python, as for `subprocess`; `merged` puts errors into the output."""
        python, *args = map(str, command)
        assert python == sys.executable
        out = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  (closed by end_all)
        err = out if merged else tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        opened = [f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in (out, err)]
        pid = self.ask(args=args, cwd=str(cwd), env=dict(os.environ if env is None else env), output=opened)
        self.processes.append(Process(self, pid, [*map(str, command)], (out, err)))
        return self.processes[-1]

    def run(
        self, command: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None, timeout: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(command, cwd, env, merged=False)
        output, errors = process.communicate(timeout)
        assert process.returncode is not None
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def ask(self, **request: Any) -> int:
        assert self.server.stdin and self.server.stdout
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def end_all(self) -> None:
        """Whatever a failed test has left behind."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.poll(10)
            for file in process.files:
                file.close()
        self.processes.clear()

    def close(self) -> None:
        self.end_all()
        assert self.server.stdin and self.server.stdout
        self.server.stdin.close()
        self.server.wait(10)
        self.server.stdout.close()


def serve() -> None:
    sys.path[0] = str(ROOT)
    for name in OTHERS:
        importlib.import_module(name)
    for package in PACKAGES:
        for module in pkgutil.walk_packages([str(ROOT / package.replace(".", "/"))], f"{package}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    warm_up()
    assert len(os.listdir("/proc/self/task")) == 1, "a forked process can hang if its parent has used a second thread"
    gc.collect()
    gc.freeze()
    answers = os.dup(1)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        elif (answer := os.fork()) == 0:
            os.close(answers)
            become(request)
        os.write(answers, f"{answer}\n".encode())


def warm_up() -> None:
    """Hydra's parsers build their tables as they parse, which takes most of the time of a short command."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import grammar_parser

    for path in (ROOT / "conf").rglob("*.yaml"):
        for found in re.findall(r"\$\{[^{}]+\}", path.read_text()):
            grammar_parser.parse(found)
    words = "policy=bc_mlp +a.b=1 ~c ++d=0.5 e=[a,1,x/y] f={a:null} g=1e-3,2 h='x,y' l=/t/a-b_c.d k=true m=range(3) n=a,b"
    OverridesParser.create().parse_overrides(words.split())


def become(request: dict[str, Any]) -> NoReturn:
    """In the forked process: what a fresh Python with this command line does."""
    from sweeps.forkserver import end_as_python

    end_as_python(lambda: run(request))


def run(request: dict[str, Any]) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored by what a shell starts in the background
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # if the tests are killed
    for number, path in enumerate((os.devnull, *request["output"])):
        os.dup2(os.open(path, os.O_RDWR | os.O_APPEND), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    warnings.simplefilter(request["env"].get("PYTHONWARNINGS", "error"))
    added = [path for path in request["env"].get("PYTHONPATH", "").split(":") if path]
    if request["args"][0] == "-m":
        _, module, *words = request["args"]
        sys.path[:1] = [request["cwd"], *added]
        sys.argv = [module, *words]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv = request["args"]
        sys.path[:1] = [os.path.dirname(sys.argv[0]), *added]
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    serve()
