"""Read plain values into a typed dataclass, or raise a sentence that says which value is wrong.

OmegaConf's structured configs do part of this. They refuse `Literal` and most unions, return lists for tuples, cannot fill a
frozen dataclass inside another, and name the key only in the middle of a longer message; so the values are read here.
"""

from __future__ import annotations

import math
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from conf.errors import BadRequest

T = TypeVar("T")
NO_VALUE = "???"  # OmegaConf's mark for a value that the user has to supply
LARGEST = 10**12  # for whole numbers in a config; a section may set its own limit
EXPECTED = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}


def build(cls: type[T], values: Mapping[str, Any], path: str = "", largest: int = LARGEST) -> T:
    """An instance of the dataclass `cls`. Error messages name its values below `path`. No whole number in it may be larger
    than `largest`."""
    hints, known = _hints(cls), [field.name for field in fields(cls) if field.init]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise BadRequest(unknown(join(path, name), [join(path, other) for other in known]))
    given = {}
    for field in fields(cls):  # type: ignore[arg-type]
        if field.name in values:
            given[field.name] = _read(values[field.name], hints[field.name], join(path, field.name), largest)
        elif field.init and field.default is MISSING and field.default_factory is MISSING:
            raise BadRequest(f"{join(path, field.name)} has no value; add {join(path, field.name)}=...")
    try:
        return cls(**given)
    except ValueError as error:
        raise BadRequest(_located(str(error), known, path)) from error


def plain(value: Any) -> Any:
    """The reverse of `build`: the dicts, lists, numbers and text of YAML and JSON."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value) if field.init}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name
    return str(value) if isinstance(value, Path) else value


def unknown(key: str, known: Iterable[str]) -> str:
    """The error message for an unknown dotted key: the key that was probably meant, or the keys that exist there."""
    known = list(dict.fromkeys(known))
    parent, _, name = key.rpartition(".")
    siblings = [other.rpartition(".")[2] for other in known if other.rpartition(".")[0] == parent]
    siblings = [other for other in siblings if other != "_target_"]  # it is chosen with the option
    elsewhere = [other for other in known if other.rpartition(".")[2] == name]
    if near := get_close_matches(name, siblings, n=1, cutoff=0.7):
        return f"{key} does not exist; did you mean {join(parent, near[0])}?"
    if elsewhere:
        elsewhere.sort(key=lambda other: not other.startswith(key.split(".")[0] + "."))  # same section first
        return f"{key} does not exist; did you mean {' or '.join(elsewhere[:2])}?"
    return f"{key} does not exist; {parent or 'the config'} has {', '.join(siblings) or 'no keys of its own'}"


def join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else str(name)


@lru_cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _read(value: Any, hint: Any, key: str, largest: int) -> Any:
    """`value` as the type `hint` asks for. Whole floats (`1e5`) pass as integers, and text from the environment as numbers."""
    origin, args = get_origin(hint), get_args(hint)
    if value == NO_VALUE:
        raise BadRequest(f"{key} has no value; add {key}=...")
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _read_union(value, args, key, largest)
    if origin is Literal:
        return _choose(value, args, key)
    if value is None:
        raise BadRequest(f"{key} must be {_name(hint)}, got null")
    if is_dataclass(hint):
        return build(hint, _expect(value, Mapping, "a group of values", key), key, largest)  # type: ignore[arg-type]
    if (origin or hint) in (list, tuple, Sequence):
        return _read_list(value, origin or hint, args, key, largest)
    if (origin or hint) is dict:
        item = args[1] if args else Any
        items = _expect(value, Mapping, "a group of values", key).items()
        return {name: _read(v, item, join(key, name), largest) for name, v in items}
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint[_choose(value, hint.__members__, key)]
    return _within(_read_scalar(value, hint, key), key, largest)


def _read_scalar(value: Any, hint: Any, key: str) -> Any:
    if type(value) is hint:
        return value
    if not isinstance(value, (bool, Mapping, list)):
        try:
            if hint is int and float(value).is_integer():
                return int(value) if isinstance(value, str) and value.lstrip("+-").isdigit() else int(float(value))
            if hint in (float, str, Path):
                return hint(value)
        except (ValueError, OverflowError):
            pass
    raise BadRequest(f"{key} must be {_name(hint)}, got {value}")


def _within(value: Any, key: str, largest: int) -> Any:
    """Refuse numbers that are not finite or larger than `largest`."""
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRequest(f"{key} must be a finite number, got {value}")
    if isinstance(value, int) and abs(value) > largest:
        raise BadRequest(f"{key} must be at most {largest:,}, got {_short(value)}")
    return value


def _short(value: int) -> str:
    return str(value) if abs(value) < 10**15 else f"{value:.3g}" if abs(value) < 10**300 else "a number of hundreds of digits"


def _read_union(value: Any, hints: Sequence[Any], key: str, largest: int) -> Any:
    if value is None and type(None) in hints:
        return None
    options = sorted((hint for hint in hints if hint is not type(None)), key=lambda hint: type(value) is not hint)
    for hint in options:
        try:
            return _read(value, hint, key, largest)
        except BadRequest:
            if len(options) == 1:
                raise
    raise BadRequest(f"{key} must be {' or '.join(map(_name, options))}, got {value}")


def _read_list(value: Any, kind: Any, hints: Sequence[Any], key: str, largest: int) -> Any:
    items = _expect(value, (list, tuple), f"a list, as in {key}=[{value}]", key)
    if kind is tuple and hints and hints[-1] is not Ellipsis:
        if len(items) != len(hints):
            raise BadRequest(f"{key} must be a list of {len(hints)}, got {items}")
    else:
        hints = [hints[0] if hints else Any] * len(items)
    read = [_read(item, hint, f"{key}[{i}]", largest) for i, (item, hint) in enumerate(zip(items, hints, strict=True))]
    return tuple(read) if kind is tuple else read


def _choose(value: Any, choices: Iterable[Any], key: str) -> Any:
    choices = list(choices)
    if value not in choices:
        raise BadRequest(f"{key} must be one of {', '.join(map(str, choices))}, got {value}")
    return value


def _expect(value: Any, kind: Any, name: str, key: str) -> Any:
    if not isinstance(value, kind):
        raise BadRequest(f"{key} must be {name}, got {value}")
    return value


def _name(hint: Any) -> str:
    if is_dataclass(hint):
        return "a group of values"
    return EXPECTED.get(hint, str(getattr(hint, "__name__", hint)))


def _located(message: str, known: Sequence[str], path: str) -> str:
    """A message of `__post_init__` with the full key. It names a field, or begins with its own group (`data.noise ...`)."""
    parent, _, own = path.rpartition(".")
    if own and message.startswith(f"{own}."):
        return join(parent, message)
    if message.split(" ")[0].split(".")[0] in known:
        return join(path, message)
    return f"{path}: {message}" if path else message
