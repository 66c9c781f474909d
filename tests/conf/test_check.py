"""Every option composes and gets its types; every wrong value gives a sentence that names the key and what would work."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from helpers import Ask, missing_extra, save_checkpoint
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from conf.build import build, plain
from conf.check import SECTIONS, config_class
from conf.errors import BadRequest

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
KEYS = Path(__file__).with_name("public_keys.txt")
SECTION_GROUPS = {"policy": "policy", "env": "env", "encoder": "policy", "trainer": "trainer", "logger": "logger"}


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


CHOICES = [f"{group}={option}" for group in SECTION_GROUPS for option in options(group)]
STUDIES = sorted(path.stem for path in (ROOT / "sweeps" / "study").glob("*.yaml"))
RECIPES = [f"{group}={option}" for group in ("experiment", "debug", "cluster") for option in options(group)]
RECIPES += [f"study={study}" for study in STUDIES]


def dotted(values: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from dotted(value, f"{path}{name}.")
        else:
            yield f"{path}{name}"


def beside(choice: str) -> list[str]:
    """The overrides that an option needs."""
    needs_extra(choice)
    return ["env=darkroom"] if choice in ("policy=ad", "policy=compressed_ad") else []


def needs_extra(choice: str) -> None:
    if sentence := missing_extra(choice.removeprefix("env=")):
        pytest.skip(sentence)


def section_of(choice: str) -> str:
    group = choice.split("=")[0]
    return SECTION_GROUPS.get(group, group)


def plain_section(ask: Ask, choice: str) -> dict[str, Any]:
    return OmegaConf.to_container(ask.compose(choice)[0][section_of(choice)])  # type: ignore[return-value]


@pytest.mark.parametrize("choice", CHOICES)
def test_yaml_holds_exactly_the_fields_of_its_dataclass(ask: Ask, choice: str) -> None:
    section = section_of(choice)
    if choice == "env=gym":  # it needs recorded episodes
        values = {name: value for name, value in plain_section(ask, choice).items() if name != "_target_"}
        assert sorted(dotted(plain(build(config_class("envs.gym", "env"), values)))) == sorted(dotted(values))
        return
    assert sorted(dotted(plain_section(ask, choice))) == sorted(dotted(ask(choice, *beside(choice)).config[section]))


def runs_of(ask: Ask, recipe: str) -> list[list[str]]:
    """The overrides of each run of a recipe, with one of its seeds."""
    cfg, hydra = ask.compose(recipe)
    params = {key: values for key, values in (hydra.sweeper.get("params") or {}).items() if key != "seed"}
    if cfg.skip_invalid:  # some of its runs are meant to be refused
        return []
    asked = OverridesParser.create().parse_overrides([f"{key}={values}" for key, values in params.items()])
    lowest = [f"{one.key_or_group}={one.value().start}" for one in asked if one.is_interval_sweep()]  # of a search
    asked = [one for one in asked if not one.is_interval_sweep()] + OverridesParser.create().parse_overrides(lowest)
    [grid] = BasicSweeper.split_arguments(asked, None)
    # An evaluation needs a checkpoint; the policy's values can be typed without one.
    return [[recipe, *run, *(["mode=train"] if cfg.mode == "eval" else [])] for run in grid]


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_run_of_a_recipe_is_typed(ask: Ask, tmp_path: Path, recipe: str) -> None:
    cfg, hydra = ask.compose(recipe)
    needs_extra(f"env={hydra.runtime.choices.env}")
    start = []
    if cfg.trainer.cache_features:  # heads on what bc_push has learned to see
        save_checkpoint(ask("experiment=bc_push"), tmp_path)
        start = [f"init_from={tmp_path}"]
    for overrides in runs_of(ask, recipe):
        ask(*overrides, *start)


def test_every_recipe_that_is_named_exists() -> None:
    texts = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "policies").glob("*.py")]
    texts += [*CONF.rglob("*.yaml"), *(ROOT / "sweeps").rglob("*.yaml")]
    named = {match for text in texts for match in re.findall(r"\b(experiment|study|debug)=(\w+)", text.read_text())}
    assert named and {f"{group}={option}" for group, option in named} - {"experiment=NAME", "study=NAME"} <= {*RECIPES}


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_says_what_it_asks_and_what_came_of_it(study: str) -> None:
    text = (ROOT / "sweeps" / "study" / f"{study}.yaml").read_text()
    header = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    assert all(f"# {word}: " in header for word in ("Question", "Cost", "Result"))
    assert f"study={study}" in header
    assert yaml.safe_load(text)["hydra"]["mode"] == "MULTIRUN"


def test_all_fixes_make_write_up_002s_broken_recipe_the_mended_one(ask: Ask) -> None:
    needs_extra("env=push")
    budget = ("trainer.max_steps=9", "trainer.eval_every=0", "trainer.eval_episodes=0", "trainer.save_every=0", "trainer.ema=0")

    def settings(*overrides: str) -> dict[str, Any]:
        config = ask(*overrides, *budget).config
        return {name: config[name] for name in ("env", "policy", "trainer")}

    fixes = [path.stem for path in (ROOT / "sweeps" / "study" / "fix").glob("*.yaml")]
    assert settings("study=diffusion_fixes", "study/fix=[]") == settings("experiment=seed_002_broken")
    assert settings("study=diffusion_fixes", f"study/fix=[{','.join(fixes)}]") == settings("experiment=seed_002")


def test_recipes_are_single_runs() -> None:
    for path in (CONF / "experiment").glob("*.yaml"):
        assert "hydra" not in yaml.safe_load(path.read_text()), f"{path.stem} is a grid: those are studies"


def test_the_docs_say_what_every_experiment_and_study_is_for() -> None:
    table = [line.split("|")[1] for line in (ROOT / "docs" / "experiments.md").read_text().splitlines() if line.startswith("| `")]
    explained = set(re.findall(r"`(\w+)`", " ".join(table)))
    assert {path.stem for path in (CONF / "experiment").glob("*.yaml")} | {*STUDIES} <= explained


def test_values_inline_in_config_yaml_are_all_the_fields(ask: Ask) -> None:
    inline = yaml.safe_load((CONF / "config.yaml").read_text())
    request = ask()
    assert sorted(inline["eval"]) == sorted(request.config["eval"])
    assert sorted(inline.keys() - {"defaults", "hydra", "eval"}) == sorted(request.config.keys() - SECTIONS.keys())


def public_keys(ask: Ask) -> str:
    """All keys that users can type: those of the default configuration, then those that an option adds."""
    standard = sorted(dotted(OmegaConf.to_container(ask.compose()[0])))  # type: ignore[arg-type]
    added = [
        f"{choice} {key}"
        for choice in [*CHOICES, *(f"cluster={option}" for option in options("cluster"))]
        for key in dotted(plain_section(ask, choice), section_of(choice) + ".")
    ]
    return "\n".join([*standard, *sorted(line for line in added if line.split(" ")[1] not in standard)]) + "\n"


def test_public_keys_are_the_frozen_ones(ask: Ask) -> None:
    assert public_keys(ask) == KEYS.read_text(), "a public key came or went; if that is meant: python tests/conf/test_check.py"


def test_reading_the_command_line_imports_nothing_that_trains() -> None:
    script = "import sys, conf.callback; print({'trainers', 'torch', 'wandb'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout == "set()\n", done.stderr


def test_modes_without_a_policy_are_not_filed_under_one(ask: Ask) -> None:
    assert ask("mode=collect").name == "collect-minigrid" and ask("mode=health").name == "masked_dit-minigrid"


def test_defaults_of_the_request(ask: Ask) -> None:
    request = ask()
    assert (request.mode, request.seed, request.name) == ("train", 0, "masked_dit-minigrid")
    assert [type(getattr(request, name)).__name__ for name in SECTIONS] == ["Config"] * len(SECTIONS)
    assert {name: cls.__name__ for name, cls in request.targets.items()} == {
        "policy": "MaskedDiT",
        "env": "MiniGrid",
        "trainer": "Offline",
    }
    assert json.loads(json.dumps(request.config)) == request.config


def test_whole_numbers_may_be_written_as_floats(ask: Ask) -> None:
    request = ask("trainer.max_steps=1e5", "env.data.episodes=2e2", "trainer.optimizer.lr=1")
    assert (request.trainer.max_steps, type(request.trainer.max_steps)) == (100_000, int)
    assert (request.env.data.episodes, request.trainer.optimizer.lr) == (200, 1.0)
    assert request.config["trainer"]["max_steps"] == 100_000


def test_an_option_may_be_quoted(ask: Ask) -> None:
    assert ask("policy='act'", 'env="darkroom"').config == ask("policy=act", "env=darkroom").config


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("+policy.hiden_dim=3", "policy.hiden_dim does not exist; did you mean policy.hidden_dim?"),
        ("++policy.encoder.gird=mlp", "policy.encoder.gird does not exist; did you mean policy.encoder.grid?"),
        ("+trainer.lr=1", "trainer.lr does not exist; did you mean trainer.optimizer.lr?"),
        ("+batch_size=3", "batch_size does not exist; did you mean trainer.batch_size?"),
        ("++env.data.zzz=3", "env.data.zzz does not exist; env.data has source, episodes, val_episodes, "),
        ("seed=many", "seed must be a whole number, got many"),
        ("seed=-1", "seed must be at least 0"),
        ("seed=true", "seed must be a whole number"),
        ("mode=tarin", "mode must be one of train, eval, collect, health, export, got tarin"),
        ("device=gpu", "device must be one of auto, cpu, cuda, mps, got gpu"),
        ("tags=one", "tags must be a list"),
        ("name=a/../b", "name becomes a folder"),
        ("ckpt_path=runs/x", "to go on with a run use"),
        ("mode=eval", "mode=eval needs a checkpoint"),
        ("init_from=nowhere", "init_from=nowhere does not exist"),
        ("policy.hidden_dim=2.5", "policy.hidden_dim must be a whole number, got 2.5"),
        ("policy.hidden_dim=null", "policy.hidden_dim must be a whole number, got null"),
        ("policy.hidden_dim=???", "policy.hidden_dim has no value"),
        ("policy.hidden_dim=${nope}", "policy.hidden_dim: Interpolation key 'nope' not found"),
        ("policy.hidden_dim=-1", "policy.hidden_dim must be at least 1, got -1"),
        ("policy.encoder.grid=x", "policy.encoder.grid must be one of"),
        ("policy.encoder=3", "policy.encoder must be a group of values, got 3"),
        ("trainer.compile=perhaps", "trainer.compile must be true or false, got perhaps"),
        ("trainer.optimizer.lr=-1", "trainer.optimizer.lr must be above 0"),
        ("trainer.optimizer.betas=0.9", "trainer.optimizer.betas must be a list"),
        ("env.data.noise=2", "env.data.noise must be at least 0 and below 1"),
        ("logger=none", None),
        ("trainer.optimizer.lr=nan", "trainer.optimizer.lr must be a finite number, got nan"),
        ("trainer.grad_clip=inf", "trainer.grad_clip must be a finite number, got inf"),
        ("trainer.max_steps=1e30", "trainer.max_steps must be at most 1,000,000,000, got 1e+30"),
        ("trainer.max_epochs=1e300", "trainer.max_epochs must be at most 1,000,000,000, got a number of hundreds of digits"),
        ("policy.denoise_steps=1e9", "policy.denoise_steps must be at most 1,000,000"),
        ("policy.frames=[1e30,0]", "policy.frames[0] must be at most 1,000,000"),
        ("~trainer.max_steps", "trainer.max_steps has no value any more"),
        ("~trainer.ema", "trainer.ema has no value any more"),
        ("~env.data", "env.data has no value any more"),
        ("~seed", "seed has no value any more"),
        ("name=.", "name becomes a folder"),
        ("trainer.threads=100000", "trainer.threads must be at most 1024, got 100000"),
        ("eval.num_envs=1e9", "eval.num_envs must be at most 100000"),
        ("eval.media=1e9", "eval.media must be between 0 and 100"),
        ("trainer._target_=trainers.offline.Config", "trainers.offline.Config, which is not a trainers.base.Trainer"),
        ("env.data.source=annealed_expert+annealed_expert", "is annealed_expert alone"),
        ("name=a/.", "name becomes a folder"),
        ("data_dir=", "data_dir is empty"),
        ("eval.split=tset", "eval.split must be one of"),
    ],
)
def test_sentences(ask: Ask, override: str, sentence: str | None) -> None:
    if sentence is None:
        ask(override)
        return
    with pytest.raises(BadRequest) as refused:
        ask(override)
    assert sentence in str(refused.value)


@pytest.mark.parametrize("target", ["torch.load", "numpy.load", "builtins.open", "torch.utils.collect_env.run", "os.system"])
@pytest.mark.parametrize("key", ["policy._target_", "env._target_", "trainer._target_"])
def test_targets_outside_the_allow_list_are_refused(ask: Ask, target: str, key: str) -> None:
    with pytest.raises(BadRequest, match=rf"{key} is {target}, but only policies, envs, trainers are trusted"):
        ask(f"{key}={target}")


@pytest.mark.parametrize("key", ["policy.encoder._target_", "_target_", "eval._target_", "tags"])
def test_targets_elsewhere_are_refused(ask: Ask, key: str) -> None:
    override = "tags=[{_target_:builtins.open}]" if key == "tags" else f"+{key}=policies.bc_mlp.BCMLP"
    with pytest.raises(BadRequest):
        ask(override)


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("envs.minigrid.MiniGrid", "which is not a policies.base.Policy"),
        ("policies.bc_mlp.Nothing", "policies.bc_mlp has no Nothing"),
        ("policies.nowhere.BC", "cannot be imported"),
        ("policies.bc_mlp.torch.load", "cannot be imported"),  # a module that ours imports is not ours
        ("BCMLP", "must name a class"),
    ],
)
def test_targets_that_are_no_policy_are_refused(ask: Ask, target: str, sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence):
        ask(f"policy._target_={target}")


def test_class_that_our_module_only_imports_is_refused(ask: Ask) -> None:
    assert hasattr(importlib.import_module("trainers.base"), "Path")
    with pytest.raises(BadRequest, match=r"trainer._target_ is trainers\.base\.Path, which is not a trainers\.base\.Trainer"):
        ask("trainer._target_=trainers.base.Path")


def test_a_class_that_does_not_train_is_refused(ask: Ask) -> None:
    with pytest.raises(BadRequest, match=r"trainers\.base\.Outcome, which is not a trainers\.base\.Trainer"):
        ask("trainer._target_=trainers.base.Outcome")


@dataclass
class Inner:
    rate: float = 0.5

    def __post_init__(self) -> None:
        if self.rate > 1:
            raise ValueError("rate must be at most 1")


@dataclass(frozen=True)
class Outer:
    betas: tuple[float, float] = (0.9, 0.99)
    kind: Literal["a", "b"] = "a"
    limit: int | None = None
    sizes: list[int] = field(default_factory=list)
    inner: Inner = field(default_factory=Inner)
    width: int | float = 1


def test_build_reads_what_dataclasses_can_say() -> None:
    built = build(Outer, {"betas": [1, 0.5], "kind": "b", "limit": 3.0, "sizes": [1e1], "inner": {"rate": 1}, "width": 0.5}, "x")
    assert built == Outer((1.0, 0.5), "b", 3, [10], Inner(1.0), 0.5)
    assert isinstance(built.betas, tuple)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"betas": [1]}, "x.betas must be a list of 2"),
        ({"betas": [1, "a"]}, r"x.betas\[1\] must be a number, got a"),
        ({"kind": "c"}, "x.kind must be one of a, b, got c"),
        ({"limit": "none"}, "x.limit must be a whole number, got none"),
        ({"inner": {"rate": 3}}, "x.inner.rate must be at most 1"),
        ({"inner": {"rat": 3}}, "x.inner.rat does not exist; did you mean x.inner.rate"),
        ({"width": "wide"}, "x.width must be a whole number or a number, got wide"),
    ],
)
def test_build_says_what_is_wrong(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence):
        build(Outer, values, "x")


if __name__ == "__main__":
    KEYS.write_text(public_keys(Ask()))
