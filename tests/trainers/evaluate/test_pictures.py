from __future__ import annotations

import io
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from envs.base import Family
from envs.minigrid import Config as MiniGridConfig
from envs.minigrid import MiniGrid
from envs.play import play
from policies.masked_dit import Config, MaskedDiT
from trainers.evaluate import episodes, pictures
from trainers.evaluate.base import Config as Evaluation
from trainers.evaluate.rollout import PolicyPlayer

CPU = torch.device("cpu")
TINY = (
    *("trainer.max_steps=1", "trainer.batch_size=16", "trainer.eval_every=0", "env.data.episodes=20", "env.data.val_episodes=4"),
    *("env.max_steps=10", "eval.episodes=2"),
)
NAMES = ["left", "go", "right"]
END, PAD, MASK = 3, 4, 5
ROUNDS = np.array(  # [K+1=5, N=2, slots=4]
    [
        [[MASK, MASK, MASK, MASK], [MASK, MASK, MASK, MASK]],
        [[MASK, 1, MASK, MASK], [MASK, MASK, END, PAD]],
        [[0, 1, MASK, MASK], [2, MASK, END, PAD]],
        [[0, 1, 2, MASK], [2, 1, END, PAD]],
        [[0, 1, 2, 1], [2, 1, END, PAD]],
    ]
)


def drawn(rounds: np.ndarray = ROUNDS, names: list[str] = NAMES) -> tuple[Image.Image, Image.Image]:
    """The GIF and the PNG."""
    black = np.zeros((40, 40, 3), np.uint8)
    gif, png = (
        Image.open(io.BytesIO(picture.encoded)) for picture in pictures.unmasking([black] * rounds.shape[1], rounds, names)
    )
    assert gif.format == "GIF" and png.format == "PNG"
    return gif, png


def area(image: Image.Image, colour: str) -> int:
    return int((np.asarray(image.convert("RGB")) == ImageColor.getrgb(colour)).all(-1).sum())


def test_the_strip_has_a_row_for_each_round_and_a_column_for_each_slot():
    many = np.full((pictures.ROUNDS, 2, 4), MASK)  # more rows than the picture of a state is high
    tall, taller = (drawn(many[:rounds])[1].height for rounds in (pictures.ROUNDS - 1, pictures.ROUNDS))
    assert taller - tall == 2 * pictures.ROW
    width, wider = (drawn(np.full((3, 1, slots), MASK))[1].width for slots in (10, 12))
    assert (wider - width) % 2 == 0 and wider - width > 2 * pictures.FONT.getlength("right")


def test_a_cell_shows_its_action_and_nothing_of_the_mask_once_it_is_committed():
    blank = drawn(ROUNDS[:1].repeat(5, 0))[1]
    _, strip = drawn()
    hidden = area(blank, pictures.MASK) - area(strip, pictures.MASK)
    assert hidden > 0 and area(blank, pictures.NEW) < area(strip, pictures.NEW)
    for colour in pictures.COLOURS[:3]:
        assert area(blank, colour) == 0 < area(strip, colour)
    assert area(strip, pictures.COLOURS[3]) == 0
    cells = [pictures.cell(text, ground, pictures.INK, 60, False) for text, ground in (("", pictures.MASK), ("go", "#ee8866"))]
    assert area(cells[0], pictures.MASK) > 500 < area(cells[1], "#ee8866") and area(cells[1], pictures.MASK) == 0


def test_what_a_round_commits_is_outlined_in_that_round_only():
    outlined = np.diff([area(drawn(ROUNDS[: shown + 1])[1], pictures.NEW) for shown in range(5)])  # by each round's row
    committed = (ROUNDS[1:] != ROUNDS[:-1]).sum((1, 2))
    assert len(set(outlined / committed)) == 1 and outlined[0] > 0


def test_the_gif_has_a_frame_for_each_round_and_holds_the_last():
    rounds = np.concatenate([ROUNDS, ROUNDS[-1:]])  # a round that changed nothing still is one
    gif, png = drawn(rounds)
    assert gif.n_frames == len(rounds) and gif.size == png.size
    white, shown = [], []
    for frame in range(gif.n_frames):
        gif.seek(frame)
        shown.append(gif.info["duration"])
        white.append(area(gif, "white"))
    assert shown == [pictures.ROUND] * 5 + [pictures.LAST]
    assert white == sorted(white, reverse=True) and len(set(white)) == len(white)  # the table fills up


@pytest.mark.parametrize(("slots", "rounds"), [(49, 49), (49, 100), (8, 8), (200, 200), (2000, 3)])
def test_however_long_the_plan_the_pictures_stay_small(slots: int, rounds: int):
    making = np.full((rounds + 1, 4, slots), MASK)
    for number in range(1, rounds + 1):  # the last round commits the last slot
        making[number, :, : slots * number // rounds] = number % 3
    gif, png = drawn(making)
    assert gif.n_frames == min(rounds + 1, pictures.ROUNDS)
    assert gif.width * gif.height * gif.n_frames < 2e7
    assert area(png, pictures.COLOURS[rounds % 3]) > 0 and png.size == gif.size


def test_of_many_rounds_the_first_and_the_last_are_drawn():
    making = np.full((100, 1, 1), MASK)
    making[1:50] = 0
    making[50:99] = 1
    making[99] = 2
    _, strip = drawn(making)
    assert all(area(strip, colour) > 0 for colour in pictures.COLOURS[:3])
    assert area(strip, pictures.MASK) - area(drawn(making[1:])[1], pictures.MASK) > 300  # the one masked cell


def test_a_film_is_reduced_to_its_colours_frame_by_frame():
    whole: list[weakref.ref[Image.Image]] = []
    held: list[int] = []

    def frames() -> Iterator[Image.Image]:
        for number in range(20):
            held.append(sum(frame() is not None for frame in whole))
            frame = Image.new("RGB", (8, 8), (number, 0, 0))
            whole.append(weakref.ref(frame))
            yield frame

    gif = Image.open(io.BytesIO(pictures.encode_gif(frames(), 100)))
    assert gif.format == "GIF" and len(held) == 20 and max(held) < 4


def test_more_actions_than_colours_are_drawn():
    numbers = [str(action) for action in range(30)]
    drawn(np.array([[[32, 32]], [[29, 32]], [[29, 30]]]), numbers)


def test_actions_have_names():
    place = MiniGrid(MiniGridConfig())
    assert place.action_names == ["left", "right", "forward", "pickup", "drop", "toggle", "done"]
    other = Family()
    other.spaces = place.spaces
    assert other.action_names == ["0", "1", "2", "3", "4", "5", "6"]


@pytest.mark.parametrize("decode", ["sampled", "greedy"])
def test_the_plan_that_is_drawn_is_the_plan_that_was_carried_out(decode: str):
    place = MiniGrid(MiniGridConfig(id="MiniGrid-DoorKey-5x5-v0", max_steps=20))
    policy = MaskedDiT(Config(), place.spaces).eval()
    torch.nn.init.normal_(policy.head.weight)  # else all actions are equally likely
    seeds = place.seeds("test", 12)
    config = Evaluation(episodes=12, media=3, decode=[decode])
    rounds = episodes.first_plans(policy, place, config, seeds[:3], 5, CPU)
    assert rounds is not None and rounds.shape[1:] == (3, policy.config.horizon)
    assert (rounds[0] == policy.MASK).all() and (rounds[-1] < policy.MASK).all()
    played = play(PolicyPlayer(policy, decode == "greedy", 5, CPU), place, seeds, 4, keep=3)
    for index in range(3):
        plan = rounds[-1, index]
        begun = plan[: policy.config.execute][plan[: policy.config.execute] < policy.END]
        assert len(begun) and np.array_equal(played.actions[index][: len(begun)], begun)


@pytest.mark.slow
def test_a_run_of_masked_dit_shows_its_unmasking(launch: Callable, here: Path):
    done = launch("policy=masked_dit", *TINY, "eval.media=2", "hydra.run.dir=run")
    media = here / "run/media"
    assert {path.name for path in media.iterdir()} == {"episodes.gif", "unmasking.gif", "unmasking.png"}
    for path in media.iterdir():
        assert str(path) in done.stdout
    with Image.open(media / "unmasking.gif") as gif:
        assert gif.n_frames == Config().denoise_steps + 1
        size = gif.size
    board = EventAccumulator(str(here / "run/tensorboard"), size_guidance={"images": 0}).Reload()
    for title, file in (("unmasking", "unmasking.gif"), ("unmasking_strip", "unmasking.png")):
        (image,) = board.Images(f"test/{title}")
        assert image.encoded_image_string == (media / file).read_bytes()
        assert (image.width, image.height) == size


def test_there_are_no_pictures_where_there_is_nothing_to_show(launch: Callable, here: Path):
    place = MiniGrid(MiniGridConfig(id="MiniGrid-DoorKey-5x5-v0", max_steps=10))
    policy = MaskedDiT(Config(), place.spaces)
    config = Evaluation(episodes=2, media=0, decode=["greedy"])
    assert episodes.evaluate(policy, place, config, None, 0, CPU).pictures == []
    launch("policy=bc_mlp", *TINY, "eval.media=1", "hydra.run.dir=run")
    assert [path.name for path in (here / "run/media").iterdir()] == ["episodes.gif"]


def test_a_film_names_each_step_and_how_the_episode_ended():
    labels = pictures.labels_of(np.array([1, 0, 1]), ["left", "right"], "sampled", "solved")
    assert labels == ["sampled", "1  right", "2  left", "solved"]
    assert pictures.labels_of(np.zeros((2, 3)), [], "greedy", "not solved") == ["greedy", "1", "not solved"]
    black = np.zeros((2, 20, 40, 3), np.uint8)
    first, second = (
        np.asarray(Image.open(io.BytesIO(pictures.film([black], [[text] * 2]).encoded)).convert("L")) for text in "ab"
    )
    assert first.shape == (20 + pictures.ROW, pictures.LABEL + pictures.GAP)
    assert (first[:20] == second[:20]).all() and (first[20:] != second[20:]).any()
