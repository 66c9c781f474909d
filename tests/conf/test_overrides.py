"""Overrides are checked before anything is composed."""

from __future__ import annotations

import pytest

from conf.errors import BadRequest
from conf.overrides import parsed, refuse_wrong_choices, refuse_wrong_grid, trusted_by

GROUPS = {"policy": ["bc", "gru"], "experiment": ["x"]}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["policy=null"], "policy=null: policy needs an option; policy is one of bc, gru"),
        (["policy=[bc]"], "policy takes one option and no list (a sweep is -m policy=a,b)"),
        (["experiment=../config"], "experiment=../config: an option is called by its name, not by a path"),
        (["policy=bc", "seed=1", "policy=gru"], "policy is chosen twice, bc and gru; leave out one of them"),
        (["env.data={}"], "env.data={} changes nothing"),
        (["policy=bc", "policy=bc", "experiment=null", "policy.width=3", "seed=1", "seed=2"], None),
        (["policy=bc,gru", "~experiment"], None),
    ],
)
def test_choices(words: list[str], sentence: str | None) -> None:
    try:
        refuse_wrong_choices(words, lambda group: GROUPS.get(group, []))
    except BadRequest as error:
        assert sentence and sentence in str(error)
    else:
        assert sentence is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["seed=range(0,10000000)"], "this sweep has 10,000,000 runs (10,000,000 of seed); at most 100,000"),
        (["seed=range(0,2000)", "a=1,2", "b=range(0,1,0.01)"], "400,000 runs (2,000 of seed x 2 of a x 100 of b)"),
        (["seed=range(0,0)"], "seed=range(0,0) is an empty sweep"),
        (["seed=range(3,0)"], "seed=range(3,0) is an empty sweep"),
        (["seed=range(0,3,0)"], "seed=range(0,3,0) never arrives, because its step is 0"),
        (["seed=range(0,100)", "a=1,2", "lr=interval(0,1)", "c=5"], None),
        (["seed=range(3,0,-1)"], None),
    ],
)
def test_a_grid_is_counted_before_it_is_made(words: list[str], sentence: str | None) -> None:
    try:
        refuse_wrong_grid(parsed(words))
    except BadRequest as error:
        assert sentence and sentence in str(error)
    else:
        assert sentence is None


def test_trust_is_read_from_the_words() -> None:
    assert trusted_by(["trusted_packages=[a,b]", "seed=1", "policy=x"]) == ["a", "b"]
    assert trusted_by(["seed=1"]) == []
