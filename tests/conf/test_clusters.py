"""`cluster=`: the values of the YAML files reach the launcher, in every way that a user can set them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest
import yaml
from helpers import CONF, options
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from conf import clusters
from conf.errors import BadRequest
from sweeps.launching import cluster_of


@pytest.fixture(autouse=True)
def config_dir() -> Iterator[None]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def chosen(*overrides: str) -> Any:
    return compose("config", list(overrides), return_hydra_config=True)


@pytest.mark.parametrize("name", options("cluster"))
def test_yaml_holds_exactly_the_fields_and_their_defaults(name: str):
    values = yaml.safe_load((CONF / f"cluster/{name}.yaml").read_text())["cluster"]
    assert values == asdict(clusters.CLUSTERS[name]())
    assert cluster_of(chosen(f"cluster={name}")) == clusters.CLUSTERS[name]()


def test_a_single_run_stays_here_and_a_cluster_is_a_sweep():
    assert chosen().hydra.mode is None
    assert chosen("cluster=slurm").hydra.mode.name == "MULTIRUN"
    assert chosen("cluster=slurm", "hydra.mode=RUN").hydra.mode.name == "RUN"


@pytest.mark.parametrize(
    "words",
    [
        ["cluster=slurm", "cluster.partition=gpu", "cluster.extra=['--mail-type=END']"],
        ["cluster=slurm", "hydra.launcher.partition=gpu", "hydra.launcher.extra=['--mail-type=END']"],
        ["hydra/launcher=slurm", "hydra.launcher.partition=gpu", "hydra.launcher.extra=['--mail-type=END']"],
    ],
)
def test_three_ways_to_say_it(words: list[str]):
    assert cluster_of(chosen(*words)) == clusters.Slurm(partition="gpu", extra=["--mail-type=END"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["cluster=slurm", "cluster.time_min=1", "cluster.signal_s=90"], "must leave time to save a checkpoint"),
        (["cluster=slurm", "cluster.pack=0"], "cluster.pack must be at least 1, got 0"),
        (["cluster=slurm", "cluster.signal=KILL"], "cluster.signal must be one of USR1, USR2, got KILL"),
        (["cluster=slurm", "cluster.extra=[gres]"], "cluster.extra holds options of sbatch, which begin with --"),
        (["cluster.jobs=x"], "cluster.jobs must be a whole number, got x"),
        (["hydra/launcher=slurm", "hydra.launcher.cpus=0"], "hydra.launcher.cpus must be at least 1, got 0"),
    ],
)
def test_what_is_wrong_is_said(words: list[str], sentence: str):
    with pytest.raises(BadRequest, match=sentence.replace("[", r"\[").replace(".", r"\.")):
        cluster_of(chosen(*words))


def test_a_cluster_is_no_part_of_what_a_run_is():
    assert "cluster" in OmegaConf.to_container(chosen())
    from conf.folder import NOT_IDENTITY

    assert "cluster" in NOT_IDENTITY
