"""What is left behind when SLURM accepts a part of a sweep and refuses the rest.

Its commands are stand-ins: when a real queue fills up between two arrays is hard to arrange.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conf import status
from conf.clusters import Slurm
from sweeps.slurm import parameters

FULL = "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit)"
COMMANDS = {
    "sbatch": f'if [ -e accepted ]; then echo "{FULL}" >&2; exit 1; fi\ntouch accepted; echo "Submitted batch job 41"',
    "scancel": 'echo "$@" >> cancelled',
    "scontrol": 'echo "MaxArraySize = 3"',
    "squeue": "exit 0",
    "srun": "exit 1",
    "sacct": "exit 1",
}


@pytest.fixture
def environment(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    (tmp_path / "bin").mkdir()
    for name, text in COMMANDS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return {**environment, "PATH": f"{tmp_path / 'bin'}:{environment['PATH']}"}


def test_a_queue_that_fills_up_leaves_nothing_half_submitted(launch: Callable, here: Path):
    done = launch("-m", "cluster=slurm", "hydra.sweep.dir=sweep", "mode=collect", "seed=0,1,2,3")
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "so nothing was submitted: Job violates accounting/QOS policy (job submit limit)" in done.stderr
    assert (here / "cancelled").read_text().split() == ["41"]  # the array that had been accepted
    assert [path.name for path in (here / "sweep/slurm").iterdir()] == ["code"]
    found = [status.read(path.parent) for path in here.glob("sweep/*/config.yaml")]
    assert len(found) == 4 and all(values["status"] == "pending" and not values.get("job") for values in found)


def test_every_value_reaches_sbatch():
    cluster = Slurm(
        **{"partition": "gpu", "account": "lab", "qos": "high", "constraint": "a100", "dependency": "afterok:7"},
        **{"cpus": 3, "memory": "4G", "gpus": 2, "time_min": 90, "pack": 4, "parallel": 5, "signal": "USR1", "signal_s": 120},
        extra=["--mail-type=END", "--exclusive"],
    )
    more = {"requeue": True, "signal": "USR1@120", "mail-type": "END", "exclusive": True}
    assert parameters(cluster) == {
        **{"job_name": "iolaus", "partition": "gpu", "account": "lab", "qos": "high", "constraint": "a100"},
        **{"dependency": "afterok:7", "time": 90, "cpus_per_task": 12, "gpus_per_node": 2, "mem": "16G"},
        **{"signal_delay_s": 120, "array_parallelism": 5, "additional_parameters": more},
    }
