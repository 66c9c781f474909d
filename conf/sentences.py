"""Turns errors of Hydra, YAML and the file system into sentences that a user can act on."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from difflib import get_close_matches
from typing import Any

from hydra.errors import CompactHydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import MarkedYAMLError

from conf import forgotten, internals, terminal
from conf.build import join, unknown
from conf.errors import BadRequest, Exit, RunFailed
from conf.ranks import here

CHOICES = ("encoder", "experiment", "study", "debug", "cluster")  # chosen at the top, but no keys of the config
PLUGINS = {  # the packages of options that Hydra's documentation names
    "hydra/launcher=joblib": "hydra-joblib-launcher",
    "hydra/launcher=ray": "hydra-ray-launcher",
    "hydra/launcher=rq": "hydra-rq-launcher",
    "hydra/launcher=submitit_local": "hydra-submitit-launcher",
    "hydra/launcher=submitit_slurm": "hydra-submitit-launcher",
    "hydra/sweeper=ax": "hydra-ax-sweeper",
    "hydra/sweeper=nevergrad": "hydra-nevergrad-sweeper",
    "hydra/sweeper=optuna": "hydra-optuna-sweeper",
}
NO_PLACE = {errno.ENOSPC: "no space left", errno.EDQUOT: "over quota", errno.EROFS: "read-only", errno.EACCES: "not permitted"}


def report(error: Exception) -> Exit:
    """Print the sentence for `error` and return its exit code; raise a fault of ours again."""
    if isinstance(error, BrokenPipeError):
        terminal.nobody_reads()
        return Exit.DONE
    if (sentence := explain(error)) is None:
        raise error
    if here().rank and isinstance(error, BadRequest):  # the first process of the run says it
        return Exit.BAD_REQUEST
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error)
    print(sentence, file=sys.stderr)
    failed = isinstance(error, (OSError, RunFailed)) and not isinstance(error, MissingConfigException)
    return Exit.FAILED if failed else Exit.BAD_REQUEST


def explain(error: Exception) -> str | None:
    """One or two sentences, or None for an error that the user cannot mend."""
    if isinstance(error, (BadRequest, RunFailed)):
        return str(error)
    if isinstance(error, MissingConfigException):
        return _missing_option(error)
    if isinstance(error, OverrideParseException):
        return _unreadable(str(error.override))
    if isinstance(error, CompactHydraException):
        return _composition(error)
    if isinstance(error, OmegaConfBaseException):
        where = f"{error.full_key}: " if error.full_key else ""
        return where + _first_line(error)
    if isinstance(error, ValueError) and str(error).startswith("Config group override"):
        return "a choice such as experiment= needs the name of an option; leave it out for none"
    if isinstance(error, MarkedYAMLError):
        return f"cannot read a YAML file: {error.problem}, {str(error.problem_mark).strip()}"
    if isinstance(error, OSError) and error.errno in NO_PLACE:
        where = error.filename or "the run folder"
        return f"cannot write {where}: {NO_PLACE[error.errno]}. Nothing saved so far is lost; mend that and add resume=true"
    return None


def _unreadable(argument: str) -> str:
    key, equals, value = argument.partition("=")
    if equals and not value.isascii():
        return f"cannot read {argument}: letters such as ä need quotes that reach Hydra, as in \"{key}='{value}'\""
    return f"cannot read the argument {argument}; write key=value, and quote a value that holds spaces or brackets"


def _missing_option(error: MissingConfigException) -> str:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    if package := PLUGINS.get(f"{group}={option}"):
        return f"{group}={option} comes with a plugin of Hydra, which is not installed here: pip install {package}"
    if not group:
        return f"there is no config called {option}; look at --config-name and --config-dir"
    if not error.options:
        return f"{group}={option} does not exist; there is no option of {group} yet"
    near = get_close_matches(option, error.options, n=1) or [known for known in error.options if known.startswith(option)]
    meant = f"; did you mean {group}={near[0]}?" if near else ";"
    return f"{group}={option} does not exist{meant} {group} is one of {', '.join(error.options)}"


def _composition(error: CompactHydraException) -> str:
    """The sentence for a failed composition, without Hydra's advice for an unknown key (`append with +`): it hides a typo."""
    cause = error.__cause__
    if isinstance(cause, (ConfigKeyError, ConfigAttributeError)) and isinstance(cause.parent_node, DictConfig):
        key = str(cause.full_key)
        if key in CHOICES and (words := _of_a_choice(key)):
            return words
        parent, root = key.rpartition(".")[0], internals.root(cause.parent_node)
        target = OmegaConf.select(root, f"{key.partition('.')[0]}._target_")
        sentence = forgotten.sentence(key, target) or unknown(key, [*_dotted(root), *([] if parent else CHOICES)])
        if key.startswith("policy.") and "mode=eval" in sys.argv:  # composed before the checkpoint is read
            sentence += " (for a value of the checkpoint's policy, say policy= as well)"
        return sentence
    if match := re.match(r"(?:Sweep parameters|Ambiguous value for argument) '(.*?)=(.*)'", str(error)):
        key, value = match.groups()
        return f"{key}={value} is a sweep; add -m to run them all, or write '{key}=[{value}]' if you mean a list"
    lines = [_first_line(part) for part in (error, cause) if part and str(part)]
    return ": ".join(lines)


def _of_a_choice(group: str) -> str | None:
    """For `encoder.foo=1`: the option is chosen at the top, but its values are elsewhere."""
    if any(word.lstrip("+~").startswith(f"{group}.") for word in sys.argv):
        place = "policy.encoder.*" if group == "encoder" else "the keys that it changes"
        return f"{group} is only chosen, as in {group}=NAME; its values are {place}"
    return None


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines()]
    if len(lines) > 1 and lines[0].endswith(":"):  # "In 'experiment/x': ValidationError raised while composing config:"
        return f"{lines[0]} {lines[1]}"
    return lines[0] if lines else type(error).__name__


def _dotted(node: Any, path: str = "") -> list[str]:
    keys: list[str] = []
    for name, value in node.items_ex(resolve=False):
        if not path and name == "hydra":
            continue
        keys.append(join(path, str(name)))
        if isinstance(value, DictConfig) and internals.is_filled(value):
            keys += _dotted(value, keys[-1])
    return keys
