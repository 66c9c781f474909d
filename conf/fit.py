"""Whether the weights of a checkpoint fit a network and its environment, told in the keys that a user types.

Asked before a run folder exists, of a network without memory and of a file's header: no weights are made or read for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.build import build, plain
from conf.checkpoint import put, record, saved
from conf.errors import BadRequest
from conf.folder import leaves

if TYPE_CHECKING:  # torch comes with them
    from envs.base import Family, Spaces
    from policies.base import Policy

Shapes = dict[str, list[int]]


def hollow(cls: type[Policy], config: Any, spaces: Spaces) -> Policy:
    """The policy without memory: it has names and shapes, and no values."""
    import torch

    try:
        with torch.device("meta"):
            return cls(config, spaces)
    except Exception:  # one from elsewhere that looks at values while it is made; if it is at fault, it says so again
        return cls(config, spaces)


def refuse_misfit(policy: Policy, folder: Path, config: Any, spaces: Spaces, family: Family | None = None) -> None:
    """`policy`, which may be hollow, was made of `config` and `spaces`. Of a policy that it `starts_from` only what both have
    is compared, as only that is taken."""
    held, there, here = record(folder), _stored(folder), _shapes(policy)
    partly = held["target"] in policy.starts_from
    names = here.keys() & there.keys() if partly else here.keys() | there.keys()
    wrong = sorted(name for name in names if here.get(name) != there.get(name))
    if not wrong:
        return
    cls = type(policy)

    def network(other: Any) -> Any:
        return cls.accepts(other, spaces) or _shapes(hollow(cls, other, spaces))

    words = f"the weights in {folder} do not fit this {cls.__name__}"
    if keys := _to_blame(held["config"], config, "policy", network):
        told = ", ".join(f"{key} is {then} there and {now} here" for key, then, now in keys)
        raise BadRequest(f"{words}: {told}. Choose the values of its run, or another run")
    refuse_other_spaces(folder, spaces, family)
    sizes = f"{there.get(wrong[0], 'missing')} there and {here.get(wrong[0], 'missing')} here"
    raise BadRequest(f"{words}: its {wrong[0]} is {sizes}, made by another version of the code. Choose another run")


def refuse_other_spaces(folder: Path, here: Spaces, family: Family | None = None) -> None:
    """A network is made for the shapes it was trained on. `family` has the spaces `here`; with it their keys can be named."""
    before, now = ({"action": spaces["action"], **spaces["observation"]} for spaces in (record(folder)["spaces"], here.to_json()))
    if differing := sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)):
        shapes = ", ".join(f"{name} {_pair(before.get(name), now.get(name))}" for name in differing)
        raise BadRequest(f"the checkpoint's policy cannot play in this environment: {shapes}; choose {_origin(folder, family)}")


def _origin(folder: Path, family: Family | None) -> str:
    """What to choose to have the environment that a checkpoint comes from."""
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
    """Of the keys that both have with different values, those that matter: (key, there, here). Taking over the other value of
    one that does has another effect, or is refused for not going together with the rest."""
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


def _stored(folder: Path) -> Shapes:
    from safetensors import safe_open  # takes a while, and most requests have no checkpoint

    with safe_open(folder / "policy.safetensors", framework="numpy") as file:
        return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (it is no dict)


def _shapes(policy: Policy) -> Shapes:
    return {name: list(tensor.shape) for name, tensor in policy.state_dict().items()}


def _pair(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> str:
    there, here = _shape(before), _shape(now)
    if there == here and before and now:  # the same shape, so the values in it differ
        there, here = (f"{shape} of {space.get('low')} to {space.get('high')}" for shape, space in ((there, before), (here, now)))
    return f"{there} there and {here} here"


def _shape(space: Mapping[str, Any] | None) -> str:
    return "missing" if space is None else str(space.get("shape", space.get("n")))
