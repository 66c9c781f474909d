from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from policies.encoders import Config, Encoder
from policies.encoders.discrete import Position
from policies.encoders.frozen import refuse_frozen
from policies.encoders.grid import GridMLP
from policies.encoders.language import Mission


def a_grid(side: int) -> spaces.Box:
    """MiniGrid's objects, colours and states."""
    high = np.broadcast_to(np.array([10, 5, 2], np.uint8), (side, side, 3))
    return spaces.Box(np.zeros_like(high), high, dtype=np.uint8)


def test_a_position_is_the_sum_of_its_coordinates():
    """What is learned about a row applies in all of its columns, and a row differs from the column of the same number."""
    part = Position(Config(), spaces.Box(np.zeros(2, np.uint8), np.array([4, 6], np.uint8), dtype=np.uint8), 8)
    places = torch.tensor([[0, 0], [0, 6], [4, 0], [4, 6]], dtype=torch.uint8)
    corner = part(places)[:, 0]  # [4, 8]
    assert corner.shape == (4, 8)
    assert torch.allclose(corner[1] - corner[0], corner[3] - corner[2], atol=1e-6)
    swapped = part(torch.tensor([[3, 2], [2, 3]], dtype=torch.uint8))[:, 0]
    assert not torch.allclose(swapped[0], swapped[1])


def test_whatever_is_one_of_a_few_has_an_encoder():
    seen = spaces.Dict({"key": spaces.Discrete(2), "weather": spaces.Discrete(5)})
    assert Encoder.accepts(Config(), seen) is None
    tokens = Encoder(Config(), seen, 16)({"key": torch.tensor([[1]]), "weather": torch.tensor([[4]])})
    assert tokens.shape == (1, 1, 2, 16)
    unknown = spaces.Dict({"smell": spaces.Box(0, 1, (3, 2)), "key": spaces.Discrete(2)})
    assert Encoder.accepts(Config(), unknown) == "no encoder for the observation smell"


def test_frames_from_before_the_episode_are_not_encoded(monkeypatch):
    space = spaces.Dict({"grid": a_grid(7), "direction": spaces.Discrete(4)})
    encoder, rows = Encoder(Config(), space, 16), []
    grid, direction = torch.randint(0, 3, (5, 3, 7, 7, 3), dtype=torch.uint8), torch.randint(0, 4, (5, 3))
    known = torch.tensor([[False, False, True], [False, True, True], [True] * 3, [True] * 3, [False, True, True]])
    everything = encoder({"grid": grid, "direction": direction})
    part = encoder.parts["grid"]
    forward = part.forward
    monkeypatch.setattr(part, "forward", lambda grid: rows.append(len(grid)) or forward(grid))
    tokens = encoder({"grid": grid, "direction": direction}, known)
    assert rows == [int(known.sum())]
    assert torch.allclose(tokens[known], everything[known], atol=1e-6)
    assert tokens.shape == everything.shape


def test_the_channels_of_a_cell_are_the_digits_of_one_number():
    """Saved policies depend on their order."""
    part, embedded = GridMLP(Config(grid_embedding=2), a_grid(1), 16), []
    part.inward.register_forward_pre_hook(lambda module, inputs: embedded.append(inputs[0]))
    with torch.no_grad():
        part.code.weight.copy_(torch.arange(198.0)[:, None].expand(-1, 2))
    cells = torch.cartesian_prod(torch.arange(11), torch.arange(6), torch.arange(3))  # object, colour, state
    part(cells.to(torch.uint8)[:, None, None])
    assert torch.equal(embedded[0][:, 0], (cells * torch.tensor([1, 11, 66])).sum(1).float())


@pytest.mark.parametrize(
    ("key", "thing", "space"),
    [("grid_film", "grid", a_grid(7)), ("image_film", "image", spaces.Box(0, 255, (24, 24, 3), np.uint8))],
)
def test_with_film_the_instruction_changes_how_things_are_read(key, thing, space):
    seen = spaces.Dict({thing: space, "mission": spaces.Box(0, 255, (9,), np.uint8)})
    frames = {
        thing: torch.randint(0, 3, (2, 1, *space.shape)).to(torch.uint8),
        "mission": torch.randint(1, 9, (2, 1, 9)).to(torch.uint8),
    }
    other = frames | {"mission": frames["mission"].flip(0)}
    for join in ("tokens", "concat", "sum"):
        for film in (False, True):
            config = Config(join=join, **{key: film})
            assert Encoder.accepts(config, seen) is None
            encoder = Encoder(config, seen, 16)
            part = encoder.parts[thing]
            for weight in part.film.parameters() if film else ():
                torch.nn.init.normal_(weight)  # an image's starts at zero
            read = []
            part.register_forward_hook(lambda part, given, tokens, read=read: read.append(tokens))
            tokens = [encoder(x) for x in (frames, other)]
            ours = read or [x[..., : part.feature_size] for x in tokens]
            assert torch.allclose(*ours) != film
    for wrong in (Config(ignore=["mission"], **{key: True}), Config(ignore=[thing], **{key: True})):
        assert f"{key} needs a" in str(Encoder.accepts(wrong, seen))


@pytest.mark.parametrize("join", ["tokens", "concat", "sum"])
def test_an_untrained_image_film_changes_nothing(join: str):
    seen = spaces.Dict({"image": spaces.Box(0, 255, (24, 24, 3), np.uint8), "mission": spaces.Box(0, 255, (9,), np.uint8)})
    frames = {"image": torch.randint(0, 256, (2, 1, 24, 24, 3)).to(torch.uint8), "mission": torch.randint(1, 9, (2, 1, 9))}
    film, plain = (Encoder(Config(join=join, image_film=film), seen, 16) for film in (True, False))
    new = plain.load_state_dict(film.state_dict(), strict=False).unexpected_keys
    assert new and all(name.startswith("parts.image.film.") for name in new)
    assert torch.equal(film(frames), plain(frames))


def test_image_film_needs_the_cnn():
    with pytest.raises(ValueError, match="image_film needs image=cnn"):
        Config(image="resnet18", image_film=True)


def test_features_that_depend_on_the_instruction_are_not_computed_once():
    seen = spaces.Dict({"image": spaces.Box(0, 255, (24, 24, 3), np.uint8), "mission": spaces.Box(0, 255, (9,), np.uint8)})
    for film in (False, True):
        policy = SimpleNamespace(encoder=Config(image_film=film))
        assert ("image_film=true" in str(refuse_frozen(policy, seen, "trainer.cache_features=true", trained=True))) == film


def test_pairs_of_words_mean_the_same_wherever_they_stand():
    missions = torch.tensor([[1, 2, 1, 3, 1], [1, 3, 1, 2, 1], [2, 1, 3, 1, 1]], dtype=torch.uint8)  # the first two: equal pairs
    for mission in ("pairs", "words"):
        one, same, other = Mission(Config(mission=mission), spaces.Box(0, 255, (5,), np.uint8), 16)(missions)[:, 0]
        assert torch.allclose(one, same, atol=1e-6) == (mission == "pairs")
        assert not torch.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("mission", ["words", "pairs"])
def test_words_that_are_not_there_cost_nothing_and_change_nothing(mission: str):
    part = Mission(Config(mission=mission), spaces.Box(0, 255, (9,), np.uint8), 16)
    short = torch.tensor([[3, 4, 0, 0, 0, 0, 0, 0, 0]], dtype=torch.uint8)
    long = torch.tensor([[3, 4, 5, 6, 7, 8, 9, 9, 9]], dtype=torch.uint8)
    assert torch.allclose(part(short), part(torch.cat([short, long]))[:1], atol=1e-6)
