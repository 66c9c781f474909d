import contextlib
import io

import gymnasium
import minigrid  # noqa: F401  (registers the ids)
import numpy as np
import pytest

from conf.errors import BadRequest
from envs import text
from envs.minigrid import Config, MiniGrid
from envs.minigrid.bank import simulator


def ids() -> list[str]:
    ids = [id for id in gymnasium.registry if id.startswith(("MiniGrid-", "BabyAI-"))]
    return [id for id in ids if MiniGrid.accepts(Config(id=id)) is None]


def missions(id: str, samples: int) -> set[str]:
    env = simulator(id)
    env.gen_obs = dict
    with contextlib.redirect_stdout(io.StringIO()):
        return {env.reset(seed=seed) and env.mission for seed in range(samples)}


def check_every_mission(samples: int) -> None:
    seen: dict[bytes, str] = {}
    for id in ids():
        length = MiniGrid(Config(id=id)).spaces.observation["mission"].shape[0]
        for mission in missions(id, samples):
            words = text.split(mission)
            assert set(words) <= set(text.WORDS), f"{id}: {mission}"
            assert len(words) <= length, f"{id}: {mission}"
            assert text.text(text.tokens(mission, length)) == mission
            key = text.tokens(mission, 72).tobytes()
            assert seen.setdefault(key, mission) == mission


def test_every_word_of_every_id_is_known():
    check_every_mission(samples=2)


@pytest.mark.slow
def test_every_word_of_every_id_is_known_over_many_missions():
    check_every_mission(samples=40)


def test_the_vocabulary_has_no_collision_and_is_a_byte():
    assert len(set(text.WORDS)) == len(text.WORDS)
    assert len({text.token(word) for word in text.WORDS}) == len(text.WORDS)
    assert text.VOCABULARY == 256 and max(map(text.token, text.WORDS)) < 256


def test_stored_tokens_keep_their_meaning():
    """Datasets hold these numbers. If this test fails, the vocabulary was reordered."""
    assert text.tokens("use the key to open the door", 8).tolist() == [60, 54, 32, 56, 43, 54, 19, 0]
    assert text.tokens("use quince", 2).tolist() == [60, 1]
    assert text.tokens("push the cube onto your block", 8).tolist() == [66, 54, 64, 70, 63, 71, 0, 0]


def test_unknown_words_fall_into_buckets_that_known_words_do_not_use():
    buckets = {text.token(word) for word in ("xylophone", "quince", "zeppelin", "marmalade", "obelisk")}
    assert len(buckets) > 1
    assert buckets <= set(range(1, 9)) and not buckets & {text.token(word) for word in text.WORDS}
    assert text.text([text.token("the"), text.token("quince"), 255]) == "the <1> <255>"


def test_a_mission_that_does_not_fit_is_an_error_not_another_mission():
    with pytest.raises(ValueError, match="at most 3 words, got 5"):
        text.tokens("go to the red ball", 3)
    np.testing.assert_array_equal(text.tokens("", 2), [0, 0])


def test_an_instruction_with_an_unknown_word_is_refused():
    with pytest.raises(BadRequest, match="has the unknown word 'quince'"):
        text.known_tokens("go to the quince", 5)
    np.testing.assert_array_equal(text.known_tokens("go to the ball", 5), text.tokens("go to the ball", 5))
