"""The fast composition gives the same result as Hydra's own, for anything a user can type."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
from helpers import CONF, options
from hydra import initialize_config_dir
from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict

from conf.compose import Composer
from conf.internals import CheckedLoader, shared_defaults

GROUPS = ("policy", "env", "trainer", "encoder", "logger", "experiment", "debug", "cluster")
VALUES = (
    *(
        "trainer.optimizer.lr=1e-4",
        "policy.hidden_dim=64",
        "trainer.optimizer.betas=[0.8,0.9]",
        "+extra.thing=3",
        "++policy.new=0.1",
    ),
    *("env.data={episodes: 7, noise: 0.5}", "tags=[a,b]", "name=${policy.hidden_dim}-x", "env.data.seed=${seed}", "~trainer.ema"),
    *(
        "++policy.new=0.1",
        "tags=['it is', 'a=b']",
        "trainer.threads=${mul:2}",
        "name='a,b'",
        "hydra.job.name=other",
        "+hydra.job.num=3",
    ),
    *("trainer.max_steps=1e4", "policy.encoder={}", "init_from=null", "data_dir=/a/b", "hydra.verbose=true"),
)
WRONG = (
    ["policy.hiden_dim=3"],
    ["polcy=bc_mlp"],
    ["policy=bc_mpl"],
    ["+policy=bc_mlp"],
    ["policy@x=bc_mlp"],
    ["~env"],
    ["~policy=bc_mlp"],
    ["~policy.nope"],
    ["seed=[1"],
    ["seed=1,2"],
    ["policy=bc_mlp,ad"],
    ["hydra.launcher.nope=1"],
    ["hydra/launcher=slurm", "hydra.launcher.cpus=3"],
    ["experiment=null"],
    ["policy=bc_mlp", "policy=ad"],
)


@pytest.fixture(autouse=True)
def config_dir() -> Iterator[None]:
    if not OmegaConf.has_resolver("mul"):
        OmegaConf.register_new_resolver("mul", lambda number: 2 * number)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield
    OmegaConf.clear_resolver("mul")


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], str]:
    """The whole config by the loader that shares what command lines with the same choices have in common."""
    loader = CheckedLoader(create_config_search_path(str(CONF)))

    def compose(words: list[str], mode: RunMode = RunMode.RUN) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(config_loader_impl, "create_defaults_list", shared_defaults)
            return OmegaConf.to_yaml(ConfigLoaderImpl.load_configuration(loader, "config", words, mode))

    return compose


def hydras(words: list[str], mode: RunMode = RunMode.RUN) -> str:
    return OmegaConf.to_yaml(GlobalHydra.instance().config_loader().load_configuration("config", words, mode))


def composer() -> Composer:
    return Composer(GlobalHydra.instance().config_loader(), "config")


def random_choices(chance: random.Random) -> list[str]:
    return [f"{group}={chance.choice(options(group))}" for group in GROUPS if chance.random() < 0.35]


def random_words(chance: random.Random, choices: list[str]) -> list[str]:
    words = [*choices, f"seed={chance.randrange(50)}", *chance.sample(VALUES, chance.randrange(6))]
    chance.shuffle(words)
    return words


@pytest.mark.parametrize("lists", [15, pytest.param(200, marks=pytest.mark.slow)])
def test_it_is_what_hydra_composes(lists: int):
    quick, chance = composer(), random.Random(lists)
    agreed = failed = 0
    for number in range(lists):
        if number % 3 == 0:  # what runs with the same choices share is composed once
            choices = random_choices(chance)
        words = random_words(chance, choices)
        theirs, ours = outcome(lambda: whole(words)), outcome(lambda: parts(quick, words))  # noqa: B023
        assert ours == theirs, words
        agreed, failed = agreed + isinstance(theirs, tuple), failed + isinstance(theirs, str)
    assert agreed > lists / 2, failed


@pytest.mark.parametrize("lists", [9, pytest.param(200, marks=pytest.mark.slow)])
def test_what_is_shared_is_what_hydra_composes(lists: int, shared: Callable):
    chance, agreed = random.Random(lists), 0
    for number in range(lists):
        if number % 3 == 0:
            choices = random_choices(chance)
        words = random_words(chance, choices)
        theirs = outcome(lambda: hydras(words))  # noqa: B023
        assert outcome(lambda: shared(words)) == theirs, words  # noqa: B023
        agreed += not theirs.startswith(("ConfigCompositionException", "MissingConfigException"))
    assert agreed > lists / 2
    swept = ["policy=bc_mlp,ad", "env=darkroom", "seed=1,2", "hydra.mode=MULTIRUN"]
    assert shared(swept, RunMode.MULTIRUN) == hydras(swept, RunMode.MULTIRUN)


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_it_fails_as_hydra_fails(words: list[str], shared: Callable):
    theirs = outcome(lambda: whole(words))
    assert outcome(lambda: parts(composer(), words)) == theirs
    assert isinstance(theirs, tuple) or outcome(lambda: shared(words)) == theirs


def outcome(composed):  # type: ignore[no-untyped-def]
    try:
        return composed()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def whole(words: list[str]) -> tuple[str, ...]:
    config = GlobalHydra.instance().config_loader().load_configuration("config", words, RunMode.RUN)
    hydra = OmegaConf.masked_copy(config, "hydra")
    with open_dict(config):
        del config["hydra"]
    return described(config, hydra)


def parts(quick: Composer, words: list[str]) -> tuple[str, ...]:
    config = quick(words)
    return described(config, HydraConfig.instance().cfg)


def described(config, hydra) -> tuple[str, ...]:  # type: ignore[no-untyped-def]
    HydraConfig.instance().set_config(hydra)
    node = OmegaConf.masked_copy(hydra.hydra, [key for key in hydra.hydra if key != "job"])
    return tuple(
        repr(OmegaConf.to_container(one, resolve=resolve)) for one, resolve in ((config, False), (config, True), (node, False))
    )
