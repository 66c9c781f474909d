"""Hydra's search-space syntax as Optuna's distributions."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from conf.errors import BadRequest
from sweeps.space import distribution, grid

distributions = pytest.importorskip("optuna", reason="Optuna is not installed: pip install -e '.[hpo]'").distributions
Categorical, Float, Int = (getattr(distributions, f"{name}Distribution") for name in ("Categorical", "Float", "Int"))


def read(text: str):
    [override] = OverridesParser.create().parse_overrides([f"key={text}"])
    return distribution(override)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a,b", Categorical(["a", "b"])),
        ("choice(8,16)", Categorical(["8", "16"])),
        ("range(1,5)", Int(1, 4)),
        ("range(0,10,4)", Int(0, 8, step=4)),
        ("range(0.0,1.0,0.25)", Float(0.0, 0.75, step=0.25)),
        ("interval(0,1)", Float(0.0, 1.0)),  # whole numbers are asked for with int()
        ("interval(0.0,1)", Float(0.0, 1.0)),
        ("int(interval(1,4))", Int(1, 4)),
        ("float(interval(1,4))", Float(1.0, 4.0)),
        ("tag(log, interval(1e-4,1e-2))", Float(1e-4, 1e-2, log=True)),
        ("tag(log, int(interval(1,64)))", Int(1, 64, log=True)),
    ],
)
def test_what_each_means(text: str, expected):
    assert read(text) == expected


def test_what_cannot_be_searched_is_a_sentence():
    for text, words in (("interval(2,1)", "below its end"), ("tag(log, interval(0,1))", "above 0"), ("range(3,3)", "no value")):
        with pytest.raises(BadRequest, match=words):
            read(text)
    with pytest.raises(BadRequest, match="single values"):
        list(grid({"lr": read("interval(0.0,1.0)")}))


def test_a_grid_is_every_combination():
    points = list(grid({"width": read("8,16"), "layers": read("range(1,3)"), "drop": read("range(0.0,0.2,0.1)")}))
    assert len(points) == 8 and points[0] == {"width": "8", "layers": 1, "drop": 0.0}
    assert points[1] == {"width": "8", "layers": 1, "drop": 0.1}
