"""Hydra's, YAML's and the file system's errors as the sentences that a user can act on."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from difflib import get_close_matches
from typing import Any

from hydra.errors import CompactHydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import MarkedYAMLError

from conf.build import join, unknown
from conf.errors import BadRequest, Exit

CHOICES = ("encoder", "experiment", "study", "debug", "cluster")  # chosen at the top, though no key stands there
NO_PLACE = {errno.ENOSPC: "no space left", errno.EDQUOT: "over quota", errno.EROFS: "read-only", errno.EACCES: "not permitted"}


def report(error: Exception) -> Exit:
    """Print the sentence for `error` and return the exit code that goes with it; a fault of ours is raised again."""
    if (sentence := explain(error)) is None:
        raise error
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error)
    print(sentence, file=sys.stderr)
    return Exit.FAILED if isinstance(error, OSError) and not isinstance(error, MissingConfigException) else Exit.BAD_REQUEST


def explain(error: Exception) -> str | None:
    """One or two sentences, or None for an error that is not the user's to mend."""
    if isinstance(error, BadRequest):
        return str(error)
    if isinstance(error, MissingConfigException):
        return _missing_option(error)
    if isinstance(error, OverrideParseException):
        return f"cannot read the argument {error.override}; write key=value, and quote a value that holds spaces or brackets"
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


def _missing_option(error: MissingConfigException) -> str:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    if not group:
        return f"there is no config called {option}; look at --config-name and --config-dir"
    if not error.options:
        return f"{group}={option} does not exist; there is no option of {group} yet"
    near = get_close_matches(option, error.options, n=1)
    meant = f"; did you mean {group}={near[0]}?" if near else ";"
    return f"{group}={option} does not exist{meant} {group} is one of {', '.join(error.options)}"


def _composition(error: CompactHydraException) -> str:
    """What Hydra could not compose. Its advice for an unknown key (`append with +`) only hides the typo: not repeated here."""
    cause = error.__cause__
    if isinstance(cause, (ConfigKeyError, ConfigAttributeError)) and isinstance(cause.parent_node, DictConfig):
        key = str(cause.full_key)
        parent = key.rpartition(".")[0]
        sentence = unknown(key, [*_dotted(cause.parent_node._get_root()), *([] if parent else CHOICES)])
        if key.startswith("policy.") and "mode=eval" in sys.argv:  # composed without knowing the checkpoint
            sentence += " (for a value of the checkpoint's policy, say policy= as well)"
        return sentence
    if match := re.match(r"(?:Sweep parameters|Ambiguous value for argument) '(.*?)=(.*)'", str(error)):
        key, value = match.groups()
        return f"{key}={value} is a sweep; add -m to run them all, or write '{key}=[{value}]' if you mean a list"
    lines = [_first_line(part) for part in (error, cause) if part and str(part)]
    return ": ".join(lines)


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
        if isinstance(value, DictConfig) and not value._is_none() and not value._is_missing():
            keys += _dotted(value, keys[-1])
    return keys
