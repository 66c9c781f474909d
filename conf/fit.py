"""Whether the weights of a checkpoint fit a network and its environment; errors name the keys that a user types.

Checked before a run folder exists, with a network on the meta device and a file's header: no weights are made or read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf import memory
from conf.build import build, plain
from conf.checkpoint import put, record, saved
from conf.errors import BadRequest
from conf.folder import leaves

if TYPE_CHECKING:  # these import torch
    from envs.base import Family, Spaces
    from policies.base import Policy

Shapes = dict[str, list[int]]
LARGER, SMALL = 100, 10**6  # counting a network stops at LARGER * (SMALL + the weights it is compared with)


def on_meta_device(cls: type[Policy], config: Any, spaces: Spaces, numbers: float) -> Policy:
    """The policy with names and shapes, but no values. TooLarge if it would hold more `numbers`."""
    import torch

    with memory.at_most(numbers):
        try:
            with torch.device("meta"):
                return cls(config, spaces)
        except memory.TooLarge:
            raise
        except Exception:  # a policy of another package that reads values in its constructor; real faults are raised again later
            return cls(config, spaces)


def refuse_too_large(cls: type[Policy], config: Any, spaces: Spaces) -> None:
    """Refuse a network that this machine could never train, before it is made. The runs of a sweep share a few networks."""
    if (asked := (cls, repr(config), repr(spaces))) in _small_enough:
        return
    _refuse_too_large(cls, config, spaces)
    _small_enough.add(asked)


_small_enough: set[tuple[type, str, str]] = set()


def _refuse_too_large(cls: type[Policy], config: Any, spaces: Spaces) -> None:
    most = memory.physical() / (4 * memory.TO_TRAIN)
    try:
        on_meta_device(cls, config, spaces, most)
    except memory.TooLarge as error:
        sizes = {key: value for key, value in leaves(plain(config)) if type(value) is int}
        key = max(sizes, key=sizes.__getitem__, default="")
        raise BadRequest(
            f"this network is too large: with a gradient, two moments and an average of every weight, {most:,.0f} weights "
            f"fill the {memory.physical() / 2**30:.0f} GiB of this machine. Lower policy.{key}={sizes.get(key)}"
        ) from error
    except Exception:  # a fault of that policy: making it later raises it with a traceback
        return


def refuse_misfit(
    cls: type[Policy], folder: Path, config: Any, spaces: Spaces, family: Family | None = None, part: str = ""
) -> None:
    """Check, without making it, that a policy of `config` and `spaces` fits the weights in `folder`. If they are those of a
    policy that it `starts_from`, only the parts that both have are compared, because only those are taken. `part`: only the
    weights with this in their names are taken."""
    held, there = record(folder), stored(folder)

    def shapes(other: Any) -> Shapes:
        return {name: shape for name, shape in _shapes_of(cls, other, spaces, there).items() if part in name}

    here, asked = shapes(config), {name for name in there if part in name}
    partly = held["target"] in cls.starts_from and not part
    names = here.keys() & asked if partly else here.keys() | asked
    wrong = sorted(name for name in names if here.get(name) != there.get(name))
    if here and not wrong:
        return

    def network(other: Any) -> Any:
        return cls.accepts(other, spaces) or shapes(other)

    words = f"the weights in {folder} do not fit this {cls.__name__}"
    if keys := _to_blame(held["config"], config, "policy", network):
        told = ", ".join(f"{key} is {then} there and {now} here" for key, then, now in keys)
        raise BadRequest(f"{words}: {told}. Choose the values of its run, or another run")
    refuse_other_spaces(folder, spaces, family)
    if not here:
        raise BadRequest(f"the checkpoint {folder} is damaged (its policy.json describes a larger network than its weights)")
    sizes = f"{there.get(wrong[0], 'missing')} there and {here.get(wrong[0], 'missing')} here"
    raise BadRequest(f"{words}: its {wrong[0]} is {sizes}, made by another version of the code. Choose another run")


def refuse_uncacheable(policy: Any, spaces: Spaces, trainer: Any, init_from: str | None) -> None:
    """Refuse a policy's configuration whose image features cannot be computed once, before training or on its way."""
    from policies.encoders.frozen import refuse_frozen

    asked = f"trainer.freeze_after={trainer.freeze_after}" if trainer.freeze_after else "trainer.cache_features=true"
    if sentence := refuse_frozen(policy, spaces.observation, asked, init_from is not None or trainer.freeze_after > 0):
        raise BadRequest(sentence)
    if init_from is not None and record(Path(init_from))["config"].get("encoder", {}).get("image_film"):
        raise BadRequest(
            f"the image backbone in {init_from} learned to look for what its instruction names (policy.encoder.image_film=true), "
            f"and {asked} computes each image's features without one: choose a run with image_film=false"
        )


def _shapes_of(cls: type[Policy], config: Any, spaces: Spaces, there: Shapes) -> Shapes:
    """Empty if the network would be far larger than the weights `there`; it is then not counted to its end."""
    try:
        policy = on_meta_device(cls, config, spaces, LARGER * (SMALL + sum(math.prod(shape) for shape in there.values())))
    except memory.TooLarge:
        return {}
    return {name: list(tensor.shape) for name, tensor in policy.state_dict().items()}


def refuse_other_spaces(folder: Path, here: Spaces, family: Family | None = None) -> None:
    """Refuse spaces with other shapes than in training. `family`, which has the spaces `here`, lets the error name its keys."""
    before, now = ({"action": spaces["action"], **spaces["observation"]} for spaces in (record(folder)["spaces"], here.to_json()))
    if differing := sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)):
        shapes = ", ".join(f"{name} {_pair(before.get(name), now.get(name))}" for name in differing)
        raise BadRequest(f"the checkpoint's policy cannot play in this environment: {shapes}; choose {_origin(folder, family)}")


def _origin(folder: Path, family: Family | None) -> str:
    """The overrides that choose the environment of a checkpoint."""
    if family is not None:
        cls, env = type(family), saved(folder)["env"]
        if (target := env.pop("_target_")).rpartition(".")[2] != cls.__name__:
            return f"env={target.split('.')[-2]}, as in its run"

        def spaces(other: Any) -> Any:
            return cls.accepts(other) or cls(other).spaces.to_json()  # type: ignore[call-arg]

        if keys := _to_blame(env, family.config, "env", spaces):
            return f"{' '.join(f'{key}={then}' for key, then, _ in keys)}, as in its run"
    return f"the env.* values of its run ({folder / 'config.yaml'})"


def _to_blame(there: Mapping[str, Any], here: Any, group: str, effect: Callable[[Any], Any]) -> list[tuple[str, Any, Any]]:
    """(key, there, here) for the keys whose values differ and matter: taking the other value has an effect, or is refused
    because it does not go together with the rest."""
    before, now, found = dict(leaves(there)), dict(leaves(plain(here))), []
    present = effect(here)
    for name in sorted(key for key in now.keys() & before.keys() if now[key] != before[key]):
        mixed = plain(here)
        put(mixed, name, before[name])
        try:
            same = effect(build(type(here), mixed, group)) == present
        except BadRequest:
            same = False
        if not same:
            found.append((f"{group}.{name}", before[name], now[name]))
    return found


def stored(folder: Path) -> Shapes:
    """The names and shapes of a checkpoint's weights, from the file's header."""
    from safetensors import SafetensorError, safe_open  # slow to import, and most requests have no checkpoint

    try:
        with safe_open(folder / "policy.safetensors", framework="numpy") as file:
            return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError) as error:
        raise BadRequest(f"the checkpoint {folder} is damaged (policy.safetensors: {error}); choose another one") from error


def _pair(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> str:
    there, here = _shape(before), _shape(now)
    if there == here and before and now:  # the same shape, so their values differ
        there, here = (f"{shape} of {space.get('low')} to {space.get('high')}" for shape, space in ((there, before), (here, now)))
    return f"{there} there and {here} here"


def _shape(space: Mapping[str, Any] | None) -> str:
    return "missing" if space is None else str(space.get("shape", space.get("n")))
