"""Check everything that can be wrong with a request, before a run folder exists or any data is touched.

Checks that need no torch come first: unknown keys, top-level values, targets outside the allow-list. Then each section is read
into the dataclass beside the code that uses it, and the policy is asked whether it fits the environment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf import checkpoint, clusters, fit, folder, forgotten
from conf.build import build, join, plain, unknown
from conf.errors import BadRequest
from conf.overrides import parsed
from conf.sentences import explain
from conf.targets import imported, locate, refuse_in_sections, refuse_package


@dataclass(frozen=True)
class Section:
    """A group of the config: the base of its class, or, if YAML names no class, the module of its dataclass `Config`."""

    base: str = ""
    module: str = ""
    largest: int = 10**9  # whole number that its values may have


SECTIONS = {
    "policy": Section(base="policies.base.Policy", largest=10**6),
    "env": Section(base="envs.base.Family"),
    "trainer": Section(base="trainers.base.Trainer"),
    "eval": Section(module="trainers.evaluate.base"),
    "logger": Section(module="trainers.record.boards"),
}
BACKBONE = ".backbone."  # in the names of the weights that trainer.cache_features takes from init_from
ADDS_NO_KEYS = ("experiment", "study", "debug")  # groups that only change values of the sections
NO_POLICY = ("collect", "export")  # modes that use none


@dataclass
class TopLevel:
    """The values that stand at the top of `config.yaml`."""

    mode: Literal["train", "eval", "collect", "health", "export"] = "train"
    seed: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    ckpt_path: str | None = None  # mode=eval: the checkpoint that is evaluated
    init_from: str | None = None  # a checkpoint whose weights training starts from
    resume: bool = False
    dry: bool = False
    skip_invalid: bool = False
    trusted_packages: list[str] = field(default_factory=list)
    name: str | None = None
    tags: list[str] = field(default_factory=list)
    data_dir: str = "data"

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 32:
            raise ValueError(f"seed must be at least 0 and below 2^32, got {self.seed}")
        if self.name is not None and not checkpoint.is_name(self.name):
            raise ValueError(f"name becomes a folder, so it is made of letters, digits, _ . + and -, got {self.name}")
        if not self.data_dir.strip():
            raise ValueError("data_dir is empty; give the folder for recorded episodes, as in data_dir=data")
        if self.mode == "eval" and self.ckpt_path is None:
            raise ValueError("mode=eval needs a checkpoint: ckpt_path=runs/... (a run folder, or its checkpoints/best)")
        if self.mode != "eval" and self.ckpt_path is not None:
            raise ValueError(
                "ckpt_path is what mode=eval plays; to go on with a run use hydra.run.dir=RUN resume=true, "
                "to start from its weights init_from=RUN"
            )


@dataclass(kw_only=True)
class Request(TopLevel):
    """A checked request: every section is an instance of its own dataclass."""

    name: str  # never null any more
    policy: Any
    env: Any
    trainer: Any
    eval: Any
    logger: Any
    targets: dict[str, type]  # section -> the class that its _target_ names
    config: dict[str, Any]  # the whole config as plain values: goes into config.yaml and the identity

    def refuse_unready(self) -> None:
        """Check what a run needs besides a valid configuration, before it has a folder."""
        if self.dry:
            return
        if self.mode not in NO_POLICY:  # these log nothing
            self.logger.refuse_unready(self.tags)
        if self.mode != "eval":
            folder.refuse_unwritable(Path(self.data_dir), "data_dir")


def typed(cfg: DictConfig) -> Request:
    """The checked request of a composed config; BadRequest if anything is wrong with it."""
    hydra: Any = cfg.hydra if "hydra" in cfg else HydraConfig.get()
    config = _resolved(cfg)
    reference = _reference(hydra)
    _refuse_wrong_keys(config, reference, hydra)
    if isinstance(cluster := config.pop("cluster", None), dict):  # where a run is computed is not part of its identity
        clusters.typed(cluster)
    top = build(TopLevel, {name: value for name, value in config.items() if name not in SECTIONS})
    if top.mode == "eval":
        config = checkpoint.adopt(config, hydra.overrides.task, reference)
        top = replace(top, ckpt_path=config["ckpt_path"], name=config["name"], seed=config["seed"])
    if top.init_from is not None:
        top = replace(top, init_from=str(start := _start(top.init_from, hydra)))
        checkpoint.refuse_damaged(start)
    top = replace(top, name=top.name or _default_name(config, hydra.runtime.choices))

    refuse_in_sections(config, [name for name, section in SECTIONS.items() if section.base], top.trusted_packages)
    targets = {
        name: locate(config[name].get("_target_"), f"{name}._target_", section.base, top.trusted_packages)
        for name, section in SECTIONS.items()
        if section.base
    }
    sections: dict[str, Any] = {}
    for name, section in SECTIONS.items():
        cls = config_class(section.module or config[name]["_target_"].rpartition(".")[0], name)
        sections[name] = build(cls, _values(config[name], cls, hydra.overrides.task), name, section.largest)
    for package in getattr(sections["env"], "packages", ()):
        refuse_package(package, f"env.package is {package}", top.trusted_packages)
    if top.init_from is not None and not sections["trainer"].cache_features:  # whose backbone may come from any policy
        checkpoint.refuse_other_policy(top.init_from, config["policy"]["_target_"], targets["policy"].starts_from)  # type: ignore[attr-defined]
    _refuse_pair(sections, targets, top)
    named = {name: {"_target_": config[name]["_target_"], **plain(sections[name])} for name in targets}
    return Request(**vars(top), **sections, targets=targets, config={**plain(top), **plain(sections), **named})


def _start(init_from: str, hydra: DictConfig) -> Path:
    """The checkpoint to start from, which an experiment may name before the user has trained it."""
    try:
        return checkpoint.find(init_from, "init_from")
    except BadRequest as error:
        if (experiment := _chosen(hydra).get("experiment")) and not any("init_from=" in word for word in hydra.overrides.task):
            where = f"the header of experiment={experiment} says how to train it"
            raise BadRequest(f"init_from={init_from} does not exist yet; {where}, or give another init_from=RUN") from error
        raise


def _resolved(cfg: DictConfig) -> dict[str, Any]:
    """The config without `hydra`, as plain values with all interpolations resolved."""
    config: dict[str, Any] = {}
    try:
        for name in cfg:
            if name != "hydra":  # its interpolations resolve only in the course of the run
                value = cfg[name]
                config[str(name)] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except OmegaConfBaseException as error:
        raise BadRequest(explain(error)) from error
    for name in SECTIONS:
        if not isinstance(config.get(name), dict):
            raise BadRequest(f"{name} must be a group of values; choose an option with {name}=...")
    return config


def _chosen(hydra: DictConfig) -> dict[str, str]:
    return {group: option for group, option in hydra.runtime.choices.items() if option and not group.startswith("hydra/")}


def _reference(hydra: DictConfig) -> dict[str, Any]:
    """The config of the chosen options before any value is overridden; {} for a config from a file."""
    if not GlobalHydra.instance().is_initialized():
        return {}
    chosen = _chosen(hydra)
    if any(group in chosen for group in ADDS_NO_KEYS):
        overrides = [f"~{group}" if group in ADDS_NO_KEYS else f"{group}={option}" for group, option in chosen.items()]
    else:  # what was typed says the same, and has been composed already
        typed = parsed([*hydra.overrides.hydra, *hydra.overrides.task])
        options = [one for one in typed if one.key_or_group in hydra.runtime.choices and not one.is_add() and not one.is_delete()]
        overrides = [str(one.input_line) for one in options]
    overrides += [override for override in hydra.overrides.hydra if override.startswith("hydra.searchpath=")]
    loader = GlobalHydra.instance().config_loader()
    places = tuple(f"{place.provider} {place.path}" for place in loader.get_search_path().get_path())
    key = places, hydra.job.config_name, tuple(overrides)
    if key not in _references:
        composed: Any = OmegaConf.to_container(loader.load_configuration(hydra.job.config_name, overrides, RunMode.RUN))
        _references[key] = {name: value for name, value in composed.items() if name != "hydra"}
    return _references[key]


_references: dict[tuple[Any, ...], dict[str, Any]] = {}  # the runs of a sweep share a few, also those that are forked


def _refuse_wrong_keys(config: Mapping[str, Any], reference: Mapping[str, Any], hydra: DictConfig) -> None:
    """Refuse keys that the chosen options lack: Hydra accepts `+policy.hiden_dim=3`, and any key in an experiment file."""
    if not reference:  # a config from a file: the dataclasses check its keys
        return
    chosen = _chosen(hydra)
    if config.get("mode") == "eval":  # policy and env come from the checkpoint
        config, reference = ({name: v for name, v in one.items() if name not in ("policy", "env")} for one in (config, reference))
    for key in _keys_beyond(config, reference):
        section = reference.get(key.partition(".")[0])
        target = section.get("_target_") if isinstance(section, Mapping) else None
        sentence = forgotten.sentence(key, target) or unknown(key, _dotted(reference))
        if any(override.lstrip("+").startswith(key) for override in hydra.overrides.task):
            raise BadRequest(sentence)
        files = [f"{group}={chosen[group]}" for group in ADDS_NO_KEYS if group in chosen and chosen[group] != "none"]
        raise BadRequest(f"{sentence} (in {' or '.join(files)})" if files else sentence)
    for key in _keys_beyond(reference, config):
        raise BadRequest(f"{key} has no value any more, and every key needs one; give it a value instead of taking it away")


def _keys_beyond(config: Mapping[str, Any], reference: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name, value in config.items():
        if name not in reference:
            if name != "_target_":  # has an error message of its own
                yield join(path, name)
        elif isinstance(value, Mapping) and isinstance(reference[name], Mapping) and reference[name]:
            yield from _keys_beyond(value, reference[name], join(path, name))


def _dotted(values: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield join(path, name)
        if isinstance(value, Mapping):
            yield from _dotted(value, join(path, name))


def config_class(module: str, section: str) -> type:
    found = getattr(imported(module), "Config", None)
    if not is_dataclass(found):
        raise BadRequest(f"{module} has no dataclass called Config to type the values of {section}; write one beside the class")
    return found  # type: ignore[return-value]


def _values(values: dict[str, Any], cls: type, overrides: Sequence[str]) -> dict[str, Any]:
    """The section's values, without `_target_` and without defaults for which the class has no field."""
    names = {f.name for f in fields(cls)}
    unwanted = {"_target_"} - names
    if not any(re.match(r"\+*(encoder=|policy\.encoder\b)", override) for override in overrides):
        unwanted |= {"encoder"} - names  # the defaults list chooses an encoder even if the policy has none
    return {name: value for name, value in values.items() if name not in unwanted}


def _refuse_pair(sections: Mapping[str, Any], targets: Mapping[str, Any], top: TopLevel) -> None:
    """Check that the environment can do what the mode needs, that the policy accepts its spaces, and that the weights fit the
    network."""
    family = targets["env"]
    if sentence := family.accepts(sections["env"], "play" if top.mode == "eval" else "data"):
        raise BadRequest(sentence)
    if top.mode == "export" and not sections["env"].data.export_to:
        raise BadRequest("mode=export needs a name for the Minari dataset, such as env.data.export_to=minigrid/doorkey-v0")
    if top.mode in NO_POLICY:  # the default policy need not fit
        return
    made = family(sections["env"])
    spaces = made.spaces
    if top.mode == "eval" and top.ckpt_path is not None:  # first: it may cause the other errors
        fit.refuse_other_spaces(Path(top.ckpt_path), spaces, made)
    if sentence := targets["policy"].accepts(sections["policy"], spaces):
        raise BadRequest(sentence)
    trains = top.mode in ("train", "health")
    cached = trains and sections["trainer"].cache_features
    if cached or (trains and sections["trainer"].freeze_after):
        fit.refuse_uncacheable(sections["policy"], spaces, sections["trainer"], top.init_from)
    for path in (top.ckpt_path, top.init_from):
        if path is not None:
            fit.refuse_misfit(targets["policy"], Path(path), sections["policy"], spaces, made, BACKBONE if cached else "")
    if trains:
        if sentence := targets["trainer"].accepts(sections["trainer"], made, targets["policy"]):
            raise BadRequest(sentence)
        fit.refuse_too_large(targets["policy"], sections["policy"], spaces)
    if sentence := sections["eval"].accepts(made, targets["policy"]):
        raise BadRequest(sentence)
    data = None if top.mode == "eval" else sections["env"].data
    if sentence := targets["policy"].accepts_data(sections["policy"], data, made.max_steps):
        raise BadRequest(sentence)


def _default_name(config: Mapping[str, Any], choices: Mapping[str, Any]) -> str:
    """The folder under runs/, from the names of the chosen options. Modes that use no policy are named by themselves."""
    called = {group: choices.get(group) or str(config[group].get("_target_")).split(".")[-2:][0] for group in ("policy", "env")}
    first = config["mode"] if config["mode"] in NO_POLICY else called["policy"]
    return f"{first}-{called['env']}".replace("/", "_")
