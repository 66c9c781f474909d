"""A real SLURM on this machine: slurmctld and two slurmd on loopback, started in a second and stopped by process id."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

PATH = "/usr/sbin:/sbin:" + os.environ["PATH"]
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={dir}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool/%n
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/slurmd-%n.pid
SlurmctldLogFile={dir}/log/slurmctld.log
SlurmdLogFile={dir}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=256
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,sched_min_interval=100000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
MaxArraySize=4
MinJobAge=86400
KillWait=30
CompleteWait=0
InactiveLimit=0
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={node1} CPUs=4 RealMemory=4096 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={node2} CPUs=4 RealMemory=4096 State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=urgent Nodes=n1,n2 Default=NO MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str | None:
    """The reason why no cluster can run here."""
    if absent := [name for name in NEEDED if shutil.which(name, path=PATH) is None]:
        return f"no SLURM here ({', '.join(absent)}): apt-get install slurm-wlm munge"
    return "only root can start slurmd" if os.geteuid() else None


class Cluster:
    def __init__(self, folder: Path):
        self.folder, self.processes = folder, []
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH}
        for name in ("log", "state", "spool/n1", "spool/n2", "munge"):
            (folder / name).mkdir(parents=True)
        (folder / "munge").chmod(0o711)
        key = folder / "munge/munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        ports = dict(zip(("port", "node1", "node2"), free_ports(3), strict=True))
        (folder / "slurm.conf").write_text(CONFIG.format(dir=folder, host=socket.gethostname().split(".")[0], **ports))
        (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")

    def start(self) -> None:
        munge = self.folder / "munge"
        self._spawn(
            *("munged", "--foreground", "--force", f"--key-file={munge / 'munge.key'}", f"--socket={munge / 'socket'}"),
            *(f"--pid-file={munge / 'pid'}", f"--log-file={self.folder / 'log/munged.log'}", f"--seed-file={munge / 'seed'}"),
        )
        wait_for(lambda: (munge / "socket").exists(), 30)
        self._spawn("slurmctld", "-D", "-f", str(self.folder / "slurm.conf"))
        for node in ("n1", "n2"):
            self._spawn("slurmd", "-D", "-N", node, "-f", str(self.folder / "slurm.conf"))
        wait_for(lambda: self.run("sinfo", "-h", "-N", "-o", "%T", check=False).split().count("idle") >= 2, 60)

    def stop(self) -> None:
        self.run("scancel", "--state=PENDING,RUNNING,SUSPENDED", "-u", "root", check=False)
        wait_for(lambda: not self.run("squeue", "-h", check=False), 20, certain=False)
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        for pid in self.left():  # of a job that did not end in time: it would wait for its cluster forever
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def left(self) -> list[int]:
        """Processes that live in this cluster, by their environment."""
        mark, found = f"SLURM_CONF={self.folder / 'slurm.conf'}".encode(), []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return [pid for pid in found if pid != os.getpid()]

    def run(self, *words: str, check: bool = True) -> str:
        env = {**os.environ, **self.environment}
        return subprocess.run(words, env=env, capture_output=True, text=True, check=check, timeout=60).stdout

    def states(self) -> dict[str, str]:
        """job -> its state according to SLURM, also for jobs that have ended."""
        lines = self.run("squeue", "-h", "-r", "-t", "all", "-o", "%i|%T").split()
        return dict(line.split("|") for line in lines)

    def _spawn(self, *words: str) -> None:
        with open(self.folder / f"log/{words[0]}-{len(self.processes)}.out", "w") as log:
            self.processes.append(
                subprocess.Popen(
                    words,
                    env={**os.environ, **self.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def wait_for(true, seconds: float, certain: bool = True) -> None:  # type: ignore[no-untyped-def]
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            assert not certain, f"waited {seconds} s in vain"
            return
        time.sleep(0.1)
