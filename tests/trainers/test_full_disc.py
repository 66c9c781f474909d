"""If the disc is full or read-only when a run saves, there is one sentence, and earlier files stay intact."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trainers.loop import checkpoint

RUN = ("policy=bc_mlp", "env.id=MiniGrid-DoorKey-5x5-v0", "trainer.max_steps=40", "trainer.batch_size=16", "logger=none")
SIZES = ("env.data.episodes=20", "env.data.val_episodes=4", "trainer.eval_episodes=2", "trainer.save_every=5", "eval.episodes=3")


@pytest.fixture
def small_disc(here: Path) -> Iterator[Path]:
    """A real file system of 16 MB: one checkpoint of this policy takes 10 MB."""
    place = here / "disc"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(place)], capture_output=True, timeout=60).returncode:
        pytest.skip("only root can mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True, timeout=60)


@pytest.mark.slow
def test_a_full_disc_is_one_sentence_and_the_last_checkpoint_stays(launch: Callable, small_disc: Path):
    done = launch(*RUN, *SIZES, "hydra.run.dir=disc/run", check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "no space left" in done.stderr.lower()
    root = small_disc / "run/checkpoints"
    assert not [path for path in root.iterdir() if path.name.endswith(".tmp")]
    found = checkpoint.newest(root, pytest.fail)
    assert found is not None and found.state["step"] > 0
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disc)], check=True, timeout=60)  # somebody makes room
    assert "resumed from" in launch(*RUN, *SIZES, "hydra.run.dir=disc/run", "resume=true").stdout


@pytest.mark.slow
def test_a_full_disc_for_the_data_leaves_no_half_dataset(launch: Callable, small_disc: Path):
    done = launch(*RUN, *SIZES, "data_dir=disc/data", "env.data.episodes=20000", check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "no space left" in done.stderr.lower()
    assert not [path for path in (small_disc / "data").iterdir() if path.is_dir()]


def test_a_read_only_place_is_refused_before_anything_runs(launch: Callable, small_disc: Path):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disc)], check=True, timeout=60)
    done = launch(*RUN, *SIZES, "hydra.run.dir=disc/run", check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and "hydra.run.dir" in done.stderr
