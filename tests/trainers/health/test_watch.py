"""During training, each fault is named once, with something to try; a healthy training is left alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import helpful

from trainers.health.watch import Watch


def watch(chance: float = 1.95, floor: float | None = None, max_steps: int = 1000, grad_clip: float = 1.0) -> Watch:
    return Watch(chance, floor, max_steps, grad_clip)


def said(watching: Watch, step: int, values: dict[str, float]) -> list[str]:
    return [helpful(sentence) for sentence in watching.look(step, values)]


def row(loss: float = 1.0, norm: float = 0.5) -> dict[str, float]:
    return {"train/loss": loss, "train/grad_norm": norm}


def test_a_dead_loss_is_named_once():
    seen = watch(floor=0.1)
    assert not said(seen, 100, row(loss=1.94))  # too early to tell
    (sentence,) = said(seen, 500, row(loss=1.94))
    assert "trainer.optimizer.lr" in sentence and "0.100" in sentence
    assert not said(seen, 550, row(loss=1.94)) and seen.said == {"chance": sentence}
    assert not said(watch(), 500, row(loss=1.5))
    assert not said(watch(floor=1.93), 500, row(loss=1.94))  # nothing is there to be learned


@pytest.mark.parametrize("max_steps, first", [(500, 200), (5000, 500), (1_000_000, 1000)])
def test_a_dead_loss_is_not_waited_for_too_long(max_steps, first):
    assert not said(watch(max_steps=max_steps), first - 1, row(loss=1.95))
    assert said(watch(max_steps=max_steps), first, row(loss=1.95))


def test_gradients_that_vanish_or_explode_are_named():
    assert "saturated" in said(watch(), 10, row(norm=1e-9))[0]
    assert "times trainer.grad_clip" in said(watch(), 10, row(norm=1e4))[0]
    assert not said(watch(), 10, row(norm=30.0))
    assert "trainer.grad_clip=1" in said(watch(grad_clip=0), 10, row(norm=1e4))[0]
    assert not said(watch(grad_clip=0), 10, row(norm=30.0))


def test_a_row_without_a_loss_is_passed_over():
    assert not said(watch(), 500, {"train/skipped": 3})


@pytest.mark.slow
def test_a_run_that_learns_nothing_says_so(launch: Callable, here: Path):
    words = ("policy=bc_mlp", "env.id=MiniGrid-DoorKey-5x5-v0", "env.data.episodes=40", "env.data.val_episodes=10")
    run = ("trainer.max_steps=250", "trainer.eval_every=0", "trainer.eval_episodes=0", "eval.episodes=5", "logger=none")
    done = launch(*words, *run, "trainer.optimizer.lr=1e-12", "hydra.run.dir=run")
    assert "still at chance" in done.stdout
    assert "still at chance" in json.loads((here / "run/health.json").read_text())["during_training"]["chance"]
