"""DAgger: the policy plays, and the expert shows what to do in the states that the policy gets into.

Paper: Ross et al., "A Reduction of Imitation Learning and Structured Prediction to No-Regret Online Learning" (2011), arXiv
1011.0686. There, a coin decides in each step whether the expert or the policy acts. Here the expert takes over once in an episode
and drives to its end, as in HG-DAgger (Kelly et al. 2019, arXiv 1810.02890): the expert's actions in a row are a plan, and its
labels along the policy's own path are not. So policies that predict several actions learn from the part that the expert drives,
and those that predict one learn from every step.

Training begins with recorded episodes, whose statistics normalise all data, and goes on with those and the added ones, all alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from conf.errors import BadRequest
from conf.ranks import here
from envs.base import Family
from envs.data import record
from envs.data.cache import obtain
from envs.data.config import EPISODES_PER_DATA_SEED
from envs.data.store import Dataset
from envs.data.windows import Window, Windows
from policies.base import Batch, Policy
from policies.noise import Noise, Purpose, fold
from trainers.base import Run, Trainer
from trainers.evaluate.rollout import PolicyPlayer
from trainers.loop import config
from trainers.loop.batches import Batches, joined, pinned
from trainers.loop.source import Source
from trainers.record.records import bar, say


@dataclass
class Config(config.Config):
    rounds: int = 4  # how often episodes are added
    episodes: int = 500  # in each round; of other seeds than all before
    last_round: float = 0.6  # share of max_steps before the last round; the others are evenly spread before it
    # About the share of steps that the expert drives, in the first and in the last round: a policy that knows little leads the
    # expert to few useful states, and one that knows more fails late in its episodes.
    beta: list[float] = field(default_factory=lambda: [0.5, 0.25])

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rounds", "episodes"):
            if not 1 <= getattr(self, name) <= EPISODES_PER_DATA_SEED:
                raise ValueError(f"{name} must be between 1 and {EPISODES_PER_DATA_SEED}, got {getattr(self, name)}")
        if not 0 < self.last_round < 1:
            raise ValueError(f"last_round must be above 0 and below 1, got {self.last_round}")
        if len(self.beta) != 2 or not all(0 <= beta <= 1 for beta in self.beta):
            raise ValueError(f"beta must be two numbers from 0 to 1, for the first and the last round, got {self.beta}")
        if self.max_epochs:
            raise ValueError("max_epochs counts passes over the data, and those of trainer=dagger grow; give max_steps")
        if self.data_on == "device":
            raise ValueError("data_on=device is for data that do not grow; leave it out")
        if self.freeze_after:
            raise ValueError(
                "freeze_after is for trainer=offline; to go on from such a run with its backbone frozen, use cache_features=true "
                "init_from=RUN"
            )

    def beta_of(self, number: int) -> float:
        """Of round `number`, from 1."""
        first, last = self.beta
        return first + (last - first) * (number - 1) / max(1, self.rounds - 1)


class DAgger(Trainer):
    config: Config

    @classmethod
    def accepts(cls, config: Config, family: Family, policy: type[Policy]) -> str | None:
        data = family.config.data
        if policy.memory_scope == "history":
            return f"{policy.__name__} learns from learning histories, to which trainer=dagger adds nothing; leave it out"
        if data.learners:
            return (
                f"trainer=dagger corrects single episodes, and env.data.source={data.source} records learning histories; add "
                "env.data.source=expert, or leave out trainer=dagger"
            )
        if sentence := family.accepts(family.config, needs="expert"):
            return f"trainer=dagger asks an expert. {sentence}"
        if not family.expert_takes_over:
            return (
                f"trainer=dagger lets the expert take over from the policy, and that of {type(family).__name__} can only finish "
                "what it began; choose trainer=offline, with env.data.noise for states off its path"
            )
        if data.episodes + config.rounds * config.episodes > EPISODES_PER_DATA_SEED:
            return f"env.data.episodes and trainer.rounds * trainer.episodes are more than {EPISODES_PER_DATA_SEED:,} together"
        return None

    def make_source(self) -> Source:
        if not learns_single_labels(self.data.window) and 0 in self.config.beta:
            raise BadRequest(
                "with a 0 in trainer.beta the expert never drives, and a policy that predicts several actions at once learns "
                "from what it does in a row; give it a share, as in trainer.beta=[0.5,0.25]"
            )
        return Corrections(self.data, self.config, self.run)


def learns_single_labels(window: Window) -> bool:
    """Whether a sample of this window needs one label at a time, and no plan."""
    return window.actions == 1 or window.align == "each"


class Part(NamedTuple):
    """The recorded episodes, or those of one round."""

    windows: Windows
    rows: np.ndarray  # [S] the windows that are samples

    def batch(self, samples: np.ndarray) -> Batch:
        return self.windows.batch(self.rows[samples])


class Corrections(Source):
    """The recorded episodes and those of every round so far. Rounds lie in the run's folder, where a resumed run finds them."""

    def __init__(self, windows: Windows, config: Config, run: Run):
        super().__init__(windows, config.batch_size, run.seed, run.device, "host")
        self.config, self.run = config, run
        last = config.last_round * config.max_steps
        self.begins = [0, *(max(number, int(last * number / config.rounds)) for number in range(1, config.rounds + 1))]
        self.orders = [self.batches]  # the order of the samples, for the steps from each round to the next
        self.parts = [Part(windows, np.arange(len(windows)))]
        self.offsets = np.array([0, len(windows)])  # of the parts, among all samples

    def round_of(self, step: int) -> int:
        """The newest round at step `step`; 0 before the first."""
        return int(np.searchsorted(self.begins, step, side="right")) - 1

    def prepare(self, step: int, acting: Policy) -> dict[str, float]:
        added: dict[str, float] = {}
        while (number := len(self.parts)) <= self.round_of(step):
            begins = self.begins[number]
            if begins < step and not self.folder(number).exists():
                raise BadRequest(f"{self.folder(number)} is missing, and its policy is gone; start again without resume=true")
            dataset = self.play(number, acting)
            windows = Windows(dataset, self.windows.window)
            if self.config.cache_features:  # it plays by images, and learns from their features
                assert self.run.freeze is not None
                [windows] = self.run.freeze(acting, [windows], self.folder(number).parent)
            every = learns_single_labels(windows.window)
            rows = np.arange(len(dataset)) if every else np.flatnonzero(dataset.columns["expert_drives"])
            self.parts.append(Part(windows, rows))
            self.offsets = np.append(self.offsets, self.offsets[-1] + len(rows))
            count = int(self.offsets[-1])
            self.orders.append(Batches(count, self.config.batch_size, fold(self.run.seed, Purpose.CORRECTION, number)))
            if begins == step:
                added = self.report(number, dataset, len(rows), count)
        return added

    def report(self, number: int, dataset: Dataset, added: int, count: int) -> dict[str, float]:
        by_expert, unaided = float(dataset.columns["expert_drives"].mean()), dataset.meta["unaided"]
        say(
            f"round {number} of {self.config.rounds}: {self.config.episodes} episodes, {unaided:.1%} of them solved before "
            f"the expert took over, which drove {by_expert:.0%} of the steps; {added:,} samples more, {count:,} in all"
        )
        return {"dagger/round": number, "dagger/unaided": unaided, "dagger/by_expert": by_expert, "dagger/samples": count}

    def folder(self, number: int) -> Path:
        return self.run.folder / "rounds" / f"round-{number}"

    def play(self, number: int, acting: Policy) -> Dataset:
        """Play the episodes of a round, or read them if they were played before."""
        config, run, family = self.config, self.run, self.run.family
        assert family is not None
        data = replace(family.config.data, noise=0.0, detours=0)  # the policy leads the expert astray
        first = data.episodes + (number - 1) * config.episodes
        seeds = family.seeds("train", first + config.episodes)[first:]
        seed, beta = fold(run.seed, Purpose.CORRECTION, number), config.beta_of(number)
        dataset = self.windows.dataset
        demonstration = len(dataset) / len(dataset.ends)  # steps, on average
        # Uniform around this mean, so that the expert takes over everywhere on the way.
        most = min(2 * demonstration * (1 - beta) / beta if beta else np.inf, family.max_steps)
        recipe: dict[str, Any] = {"round": number, "beta": beta, "spaces": family.spaces.to_json()}

        def steps_of_the_policy(seeds: np.ndarray) -> np.ndarray:
            if not beta:
                return np.full(len(seeds), family.max_steps)
            return (Noise(seed, 0, torch.from_numpy(seeds)).uniform().numpy() * (most + 1)).astype(np.int64)

        training = acting.training
        acting.eval()
        takeover = record.Takeover(PolicyPlayer(acting, False, seed, run.device), steps_of_the_policy)
        with bar(f"round {number}: play episodes", len(seeds)) as progress:
            made = obtain(
                self.folder(number).parent,
                self.folder(number).name,
                lambda folder: record.record_episodes(family, data, recipe, seeds, folder, progress, takeover),
            )
        acting.train(training)
        return Dataset(made)

    def inputs(self, step: int) -> Batch:
        number = self.round_of(step)
        mine = here().share(self.config.batch_size)  # of several processes that train one run
        samples = self.orders[number].samples(step - self.begins[number])[mine]
        part = np.searchsorted(self.offsets, samples, side="right") - 1
        present = np.unique(part)
        rows = [np.flatnonzero(part == index) for index in present]
        batches = [self.parts[index].batch(samples[row] - self.offsets[index]) for index, row in zip(present, rows, strict=True)]
        inputs = batches[0] if len(batches) == 1 else joined(batches, torch.from_numpy(np.argsort(np.concatenate(rows))))
        return pinned(inputs) if self.device.type == "cuda" else inputs
