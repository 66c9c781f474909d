from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from histories_of import darkroom
from PIL import Image
from rich.console import Console

from conf.errors import BadRequest
from envs.base import DataConfig
from envs.darkroom.family import Data
from envs.darkroom.walker import Walker
from envs.data import record, statistics
from envs.data.windows import Window, Windows
from envs.minigrid import Config as MiniGridConfig
from envs.minigrid import MiniGrid
from policies.ad import AD
from policies.ad import Config as ADConfig
from policies.base import Memory, Policy
from trainers.evaluate import in_context, stream_references, stream_tables, streams
from trainers.evaluate.base import Config
from trainers.health import checks

CPU = torch.device("cpu")


@dataclass
class Told:
    """The inputs of a policy in one step."""

    first: np.ndarray
    action: np.ndarray
    reward: np.ndarray


class Finder(Policy):
    """Walks at random until it is rewarded, then returns to that cell: the best behaviour of in-context learning."""

    memory_scope = "history"

    def __init__(self) -> None:
        super().__init__()
        self.window = Window()
        self.told: list[Told] = []

    def start(self, num_envs: int, device: torch.device) -> Memory:
        unknown = torch.full((num_envs,), -1, device=device)
        return {"goal": unknown, "cell": unknown.clone()}

    def act(self, observation, memory, noise, greedy=False):
        cell = observation["position"][:, 0].long() * 9 + observation["position"][:, 1]
        self.told.append(Told(*(observation[name].numpy() for name in ("first", "previous_action", "previous_reward"))))
        arrived = (observation["previous_reward"] > 0) & ~observation["first"]
        goal = torch.where(arrived, cell, memory["goal"])
        way = torch.from_numpy(Walker(9).way[(cell * 81 + goal.clamp(min=0)).numpy()])
        action = torch.where(goal >= 0, way, (noise.uniform() * 5).long())
        return action, {"goal": goal, "cell": cell}


def play(policy: Policy, tasks: int = 6, episodes: int = 7, lanes: int = 64, **values) -> streams.Streams:
    family = darkroom(**values)
    spec = streams.StreamSpec(family, "test", family.seeds("test", tasks), episodes, lanes)
    return streams.play(policy, spec, False, 0, CPU, keep=2)


def test_memory_outlives_episodes_but_not_tasks():
    played = play(Finder(), tasks=64, episodes=30)
    assert played.returns[:, 0].mean() < 4 < 8 < played.returns[:, -5:].mean()
    few = play(Finder(), tasks=64, episodes=30, lanes=16)  # each lane plays four tasks, one after another
    assert np.array_equal(few.returns, played.returns)


def test_streams_do_not_depend_on_the_lanes():
    policy = AD(ADConfig(context=30), darkroom().spaces).eval()
    policy.head.weight.data.normal_()
    many, few = play(policy), play(policy, lanes=4)
    assert np.array_equal(many.returns, few.returns) and np.array_equal(many.lengths, few.lengths)
    assert all(np.array_equal(many.actions[key], few.actions[key]) for key in many.actions)


def test_what_was_done_and_paid_is_told_in_the_next_step():
    policy = Finder()
    played = play(policy, tasks=2, episodes=3)
    first = np.stack([told.first for told in policy.told])  # [T, N]
    action = np.stack([told.action for told in policy.told])
    reward = np.stack([told.reward for told in policy.told])
    assert np.array_equal(np.flatnonzero(first[:, 0]), [0, 20, 40]) and not action[0].any() and not reward[0].any()
    assert list(played.actions) == [(0, 0), (0, 2), (1, 0), (1, 2)]
    assert np.array_equal(action[1:21, 0], played.actions[0, 0])
    for index in range(2):  # the last reward of an episode is an input of the first step of the next
        assert np.array_equal(reward[1 + 20 * index : 21 + 20 * index].sum(0), played.returns[:, index])


def test_episodes_of_different_lengths_and_streams_that_end_early():
    class Wanders(Finder):
        def act(self, observation, memory, noise, greedy=False):
            return (noise.uniform() * 5).long(), {name: value + 1 for name, value in memory.items()}

    played = play(Wanders(), tasks=40, episodes=6, game="key_to_door")
    assert played.lengths.min() >= 1 and len(np.unique(played.lengths)) > 3 and played.lengths.max() == 50
    assert (played.returns <= 2).all() and np.array_equal(played.success, played.returns == 2)


def test_a_policy_watches_the_source_first_and_is_told_what_it_did():
    class Stays(Finder):
        def act(self, observation, memory, noise, greedy=False):
            return torch.full_like(super().act(observation, memory, noise)[0], 4), memory

    family, policy = darkroom(), Stays()
    spec = streams.StreamSpec(family, "test", family.seeds("test", 16), 12, 64, primed=10)
    played = streams.play(policy, spec, False, 0, CPU)
    assert played.returns[:, 5:10].mean() > 10 and played.policy_episodes == 2
    assert not played.last.any()  # no goal lies at the start
    told = np.stack([told.action for told in policy.told])  # [T, N]
    assert len(np.unique(told[:201])) == 5 and (told[201:] == 4).all()


def test_of_what_is_shown_it_watches_every_kth_episode():
    """As in training: always the last one, and of the episodes in between not even the last reward."""
    family, policy = darkroom(), Finder()
    policy.window = Window(align="each", span="history", every=3)
    spec = streams.StreamSpec(family, "test", family.seeds("test", 16), 12, 64, primed=10)
    played = streams.play(policy, spec, False, 0, CPU)
    reward = np.stack([told.reward for told in policy.told])  # [T, N]
    assert len(reward) == 20 * (4 + 2), "episodes 1, 4, 7 and 10 of the source, and its own two"
    for number, index in enumerate((0, 3, 6, 9)):
        watched = reward[1 + 20 * number : 21 + 20 * number]  # told one step later
        assert np.array_equal(watched.sum(0), played.returns[:, index])


def test_a_source_that_cannot_show_a_single_stream_is_refused(request_for: Callable):
    with pytest.raises(BadRequest, match=r"add env\.data\.source=explorer"):
        request_for("policy=ad", "env=darkroom", "env.data.source=ppo", "eval.primed=5")


def test_references_are_of_the_same_tasks():
    family = darkroom()
    tasks = family.seeds("test", 16)
    scores = stream_references.references(streams.StreamSpec(family, "test", tasks, 40, 16), 0)
    assert list(scores) == ["random", "explorer", "optimum"]
    assert scores["random"].returns.mean() == pytest.approx(0.325, abs=0.001)
    assert scores["optimum"].returns.mean() == 17.25
    source = scores["explorer"].returns
    assert source.shape == (16, 40) and source[:, 0].mean() < 8 < 15 < source[:, -10:].mean()
    mixed = darkroom(data=type(family.config.data)(source="ppo+q_learning"))
    scores = stream_references.references(streams.StreamSpec(mixed, "test", tasks, 40, 16), 0)
    assert {"ppo", "q_learning"} <= scores.keys() and len(scores["ppo"].returns) == 8 * 10  # one pool for each of the goals


def test_random_play_has_as_many_episodes_as_everybody():
    """A player that solves one episode in six by chance has usually solved one of the last five."""
    family = MiniGrid(MiniGridConfig(id="MiniGrid-Empty-Random-5x5-v0", max_steps=20, data=DataConfig(source="annealed_expert")))
    spec = streams.StreamSpec(family, "test", family.seeds("test", 40), 10, 64)
    random = stream_references.references(spec, 0)["random"]
    assert random.returns.shape == (40, 10) and random.success.mean() < random.found.mean()


def test_what_it_only_watched_does_not_stand_under_its_name():
    family = darkroom(data=Data(source="explorer", episodes_per_history=8))
    config = Config(episodes=8, episodes_per_task=8, primed=5, decode=["sampled"], media=0)
    result = in_context.evaluate(Finder(), family, config, None, 0, CPU)
    record = json.loads(json.dumps(result.record, default=lambda x: x.tolist()))
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(stream_tables.table(record, "finder"))
    rows: dict[str, list[str]] = {}
    for line in console.export_text(clear=False).splitlines():
        if "│" in line:
            name, *cells = (cell.strip() for cell in line.split("│")[1:-1])
            rows.setdefault(name, cells)  # the curve is the first table
    curve = rows["finder, sampled"]
    assert curve[:4] == [""] * 4 and all(curve[-3:])
    assert "each task by itself" not in console.export_text()  # eight streams of eight tasks


def test_learners_who_share_play_each_task_as_often_as_its_streams():
    family = darkroom()
    for count, pool, each in ((500, 100, 100), (512, 10, 70), (8, 10, 10), (16, 1, 2)):
        played = family.task_names(stream_references.pooled(family, family.seeds("test", count), pool))
        assert {played.count(name) for name in played} == {each} and len(set(played)) == 8
        assert all(len(set(played[k : k + pool])) == 1 for k in range(0, len(played), pool))


def test_whoever_is_watched_first_is_judged_by_the_same_episodes():
    """In recall, the source's first episodes are a search; in those that the policy plays, the goals that were found return."""
    family = darkroom(game="recall", schedule=[10, 10, 2, 2], data=Data(source="explorer", episodes_per_history=24))
    spec = streams.StreamSpec(family, "test", family.seeds("test", 56), 24, 64, primed=20)
    source = stream_references.references(spec, 0)["explorer"]
    told = stream_tables.summary(source)
    assert told["return"] == pytest.approx(source.returns[:, 20:].mean()) and told["first"] > 15
    short = stream_references.references(streams.StreamSpec(family, "test", family.seeds("test", 56), 12, 64), 0)["explorer"]
    assert short.returns.shape == (56, 12)


def test_an_evaluation_shows_the_curve_and_what_it_comes_to():
    family = darkroom()
    config = Config(episodes=24, episodes_per_task=12, decode=["sampled"], media=3)
    result = in_context.evaluate(Finder(), family, config, family.seeds("train", 1000), 0, CPU)
    record = json.loads(json.dumps(result.record, default=lambda x: x.tolist()))
    assert record["headline"] == "return" and record["seen_in_training"] == 0
    expected = record["scores"]["random"]  # nothing was played
    assert expected["return"] > 0 and expected["success"] is expected["return_interval"] is None
    assert "random" not in record["per_episode"]
    assert list(record["scores"]) == ["sampled", "random", "explorer", "optimum"]
    assert len(record["by_episode"]["sampled"]["mean"]) == 12 and len(record["by_episode"]["random"]["mean"]) == 1
    assert list(record["by_task"])[:2] == ["4,2", "5,6"] and record["by_task"]["4,2"]["streams"] == 3
    assert record["by_task"]["4,2"]["best"] == 19
    ours, curve = record["scores"]["sampled"], record["by_episode"]["sampled"]["mean"]
    assert ours["return"] == pytest.approx(np.mean(curve[-10:])) and ours["area"] == pytest.approx(np.mean(curve))
    assert ours["return_interval"][0] < ours["return"] < ours["return_interval"][1]
    best = record["scores"]["optimum"]  # the same for every stream of a goal, and goals are not a sample
    assert best["return_interval"] == pytest.approx([best["return"]] * 2) and len(record["task_of_stream"]) == 24
    plot, film = result.pictures
    assert Image.open(io.BytesIO(plot.encoded)).size == plot.shape[::-1] and film.file == "episodes.gif"
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(stream_tables.table(result.record, "finder"))
    shown = console.export_text()
    for words in ("finder, sampled", "explorer", "optimum", "17.2", "best possible", "last 10"):
        assert words in shown, words


def test_greedy_acting_alone_is_named(capsys: pytest.CaptureFixture):
    in_context.evaluate(Finder(), darkroom(), Config(episodes=8, episodes_per_task=2, decode=["greedy"], media=0), None, 0, CPU)
    assert "first of eval.decode is greedy" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["policy.length=20"], "policy.length=20 is no longer than one episode of up to 20 steps"),
        (["policy.every=40"], "policy.every=40 leaves one of the 40 episodes of a history"),
        (["policy.late=40", "policy.late_weight=2"], "policy.late=40 comes after all of the 40 episodes"),
        (["policy=compressed_ad", "policy.length=15", "policy.blocks=[5]"], "policy.length=15 is no longer than one episode"),
        (
            ["env.game=recall", "env.data.episodes_per_history=42"],
            "repeat every 14 episodes, and eval.episodes_per_task=50 is not a multiple",
        ),
    ],
)
def test_what_cannot_be_learned_from_is_a_sentence(request_for: Callable, overrides: list[str], sentence: str):
    with pytest.raises(BadRequest, match=sentence):
        request_for("policy=ad", "env=darkroom", *overrides)


def test_recall_and_its_control_differ_in_their_memory_alone(request_for: Callable):
    ours, control = (request_for(f"experiment={name}") for name in ("recall", "recall_truncated"))
    assert (ours.env, ours.trainer, ours.eval) == (control.env, control.trainer, control.eval)


def test_acting_that_collapses_is_named(capsys: pytest.CaptureFixture):
    class Stands(Finder):
        def act(self, observation, memory, noise, greedy=False):
            action, memory = super().act(observation, memory, noise)
            return action * (not greedy), memory

    in_context.evaluate(Stands(), darkroom(), Config(episodes=16, episodes_per_task=12, media=0), None, 0, CPU)
    assert "most likely action" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize("mended", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_write_up_003_is_told_that_its_loss_was_the_floor(request_for: Callable, data_dir: Path, mended: bool):
    """Its sampler uses the first 160 steps of every history, where the source has not learned anything yet."""
    words = ("env.data.episodes=40000", "env.data.val_episodes=1000")
    asked = request_for("experiment=seed_003_fixed" if mended else "experiment=seed_003", *words)
    family = asked.targets["env"](asked.env)
    policy = asked.targets["policy"](asked.policy, family.spaces)
    data = Windows(record.dataset(family, asked.env.data, "train", data_dir), policy.window)
    report = checks.before_training(policy, data.batch(np.arange(8)), data, data, statistics.floor(data), seed=0)
    sentences = "".join(report.warnings)
    if mended:
        assert "no hyper-parameter" not in sentences and report.facts["target_floor"] < 0.7
        return
    assert "no hyper-parameter can help" in sentences and "policy.from_start=0" in sentences
    assert "policy.dropout=0.2 slows learning down" in sentences
    assert report.facts["target_floor"] > 1.58 and sum(report.facts["target_tenths"][2:]) == 0
    assert report.facts["smoothing_floor"] == pytest.approx(0.3897, abs=1e-4)
    # 160 steps in blocks of 20, 25, 30, 35 or 40, of which the last whole one is not compressed; depth stops at two.
    block = (20 + 25 + 30 + 35 + 40) / 5 / 160
    none, one = 2 * block, block
    assert report.facts["targets_by_compressions"] == pytest.approx([none, one, 1 - none - one, 0])


def test_targets_without_a_compressed_past_are_named(request_for: Callable, data_dir: Path):
    words = ("policy=compressed_ad", "env=darkroom", "env.data.episodes=400", "policy.length=60", "policy.blocks=[40]")
    asked = request_for(*words)
    family = asked.targets["env"](asked.env)
    policy = asked.targets["policy"](asked.policy, family.spaces)
    data = Windows(record.dataset(family, asked.env.data, "train", data_dir), policy.window)
    report = checks.before_training(policy, data.batch(np.arange(8)), data, data, statistics.floor(data), seed=0)
    assert any("there are 10 histories, each of one task" in sentence for sentence in report.warnings)
    assert any("67% of the training targets have no compressed past" in sentence for sentence in report.warnings)


@pytest.mark.slow
def test_weights_of_ad_start_a_compressed_one(launch: Callable, here: Path):
    tiny = ("env=darkroom", "env.data.episodes=40", "env.data.val_episodes=8", "eval.episodes=3", "eval.episodes_per_task=2")
    short = (*tiny, "trainer.max_steps=2", "trainer.eval_episodes=0", "trainer.schedule.warmup=0", "eval.media=0", "logger=none")
    launch("policy=ad", *short, "policy.length=40", "hydra.run.dir=first")
    words = ("policy=compressed_ad", *short, "policy.length=40", "policy.blocks=[20]", "init_from=first")
    done = launch(*words)
    assert "weights of token, head, decoder come from" in done.stdout and "compressor start untrained" in done.stdout
    wrong = launch(*words, "policy.hidden_dim=32", check=False)
    assert wrong.returncode == 2 and "policy.hidden_dim is 64 there and 32 here" in wrong.stderr
    other = launch("policy=ad", *short, "init_from=first", "policy.layers=2", check=False)
    assert other.returncode == 2 and "policy.layers is 3 there and 2 here" in other.stderr
