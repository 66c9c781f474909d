"""Minari (Younis et al. 2024): import its datasets, and export ours.

Import streams episodes into the store one by one, so a dataset of any size fits into memory. Export writes a dataset that
`minari.load_dataset` opens. Missions are exported as text, because Minari cannot store MiniGrid's mission space. Images are
stored without loss.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from conf.errors import BadRequest
from conf.folder import leaves
from envs.adapter import Adapter, Native
from envs.data.config import DataConfig
from envs.data.minari_reader import read_episodes
from envs.data.store import OBSERVATION, Dataset, Writer
from envs.text import text

if TYPE_CHECKING:
    from envs.base import Family

BLOCK = 20_000  # steps written at a time
MADE_IN = "iolaus_family"  # the entry in a dataset's metadata that holds our family's signature
VAL_SHARE = 0.2  # largest share of a dataset's episodes that is held out

Progress = Callable[[int, int], None]


def describe(source: str) -> dict[str, Any]:
    """The facts that tell this dataset from another one with the same name."""
    import minari

    spec = minari.load_dataset(source).spec
    return {"source": source, "steps": int(spec.total_steps), "episodes": int(spec.total_episodes)}


def import_episodes(
    data: DataConfig, family: Family, split: str, recipe: dict[str, Any], folder: Path, progress: Progress
) -> None:
    """The val split is the end of the dataset; the training split starts at its beginning."""
    import minari

    began = time.perf_counter()
    source = data.source
    dataset = minari.load_dataset(source)
    adapter = family.adapter
    refuse_other_spaces(source, dataset.spec, adapter)
    refuse_other_episodes(source, dataset.storage.metadata.get(MADE_IN, {}), recipe["family"], family)
    total = int(dataset.total_episodes)
    held_out = max(1, min(data.val_episodes, int(VAL_SHARE * total)))
    if total < 2:
        raise BadRequest(f"the Minari dataset {source} has {total} episode, and one has to be held out: choose a larger dataset")
    chosen = np.asarray(dataset.episode_indices)
    chosen = chosen[total - held_out :] if split == "val" else chosen[: min(data.episodes, total - held_out)]
    returns: list[float] = []
    with Writer(folder) as writer:
        for block in _blocks(_read(source, dataset.storage, chosen.tolist()), adapter):
            lengths = block.pop("length")
            returns += block.pop("return").tolist()
            writer.append_episodes(block, lengths)
            progress(len(returns), len(chosen))
        writer.close()
        writer.finish(
            {
                "recipe": recipe,
                "steps": writer.steps,
                "episodes": len(returns),
                "seconds": time.perf_counter() - began,
                "expert": {"success": None, "return": float(np.mean(returns))},
            }
        )


def _read(source: str, storage: Any, episodes: list[int]) -> Iterator[Any]:
    try:
        yield from read_episodes(storage, episodes)
    except (OSError, KeyError, RuntimeError) as error:
        raise BadRequest(f"the Minari dataset {source} cannot be read ({error}); is its file whole? Download it again") from error


def refuse_other_spaces(source: str, spec: Any, adapter: Adapter) -> None:
    if isinstance(adapter, Native):
        stored = getattr(spec.observation_space, "spaces", {"the observation": spec.observation_space})
        theirs = {(name, str(space)) for name, space in {**stored, "action": spec.action_space}.items()}
        fits = stored.keys() == set(adapter.spaces.observation) and _alike(spec.action_space, adapter.action)
        fits = fits and all(_alike(space, adapter.spaces.observation[name]) for name, space in stored.items())
    else:
        found, wanted = Adapter(spec.observation_space, spec.action_space).shapes(), adapter.shapes()
        theirs, fits = set(found.items()), found == wanted
    if not fits:
        ours = ", ".join(f"{name} {shape}" for name, shape in adapter.shapes().items())
        raise BadRequest(
            f"the Minari dataset {source} was recorded in other spaces than the environment's: it has "
            f"{', '.join(sorted(map(str, theirs)))}, the environment {ours}; choose the environment that it was "
            "recorded in (env=) and its values (env.*)"
        )


def refuse_other_episodes(source: str, there: dict[str, Any], here: dict[str, Any], family: Family) -> None:
    """Compare the signatures of the family that made the dataset and of this one, but not versions, which no value changes. Only
    datasets that we exported have a signature."""
    if there.get("class") != here["class"]:
        return
    keys = {field.name for field in fields(family.config)}
    before, now = ({name: value for name, value in leaves(one) if name.split(".")[0] in {"id", *keys}} for one in (there, here))
    differing = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if differing:
        told = ", ".join(
            f"{f'env.{name}' if name.split('.')[0] in keys else name} is {before.get(name, 'not set')} there and "
            f"{now.get(name, 'not set')} here"
            for name in differing
        )
        raise BadRequest(
            f"the Minari dataset {source} was made in another environment or with another camera: {told}. Choose the values "
            "that it was made with, or another env.data.source"
        )


def _alike(theirs: spaces.Space, ours: spaces.Space) -> bool:
    """Whether values of one space can be used as values of the other. A text can stand for its word tokens."""
    if isinstance(theirs, spaces.Text):
        return True
    return theirs.shape == ours.shape and getattr(theirs, "n", None) == getattr(ours, "n", None)


def _blocks(episodes: Any, adapter: Adapter) -> Iterator[dict[str, np.ndarray]]:
    """Yield columns, some thousand steps at a time."""
    held: list[dict[str, np.ndarray]] = []
    steps = 0
    for episode in episodes:
        length = len(episode["rewards"])
        seen = adapter.observations(episode["observations"])  # one more than the actions
        columns = {OBSERVATION + name: values[:length] for name, values in seen.items()}
        columns["action"] = adapter.encode(episode["actions"])
        columns["reward"] = np.asarray(episode["rewards"], np.float32)
        columns["terminated"] = np.asarray(episode["terminations"], bool)
        columns["truncated"] = np.asarray(episode["truncations"], bool)
        columns["truncated"][-1] |= not columns["terminated"][-1]  # some datasets cut an episode off without setting a flag
        columns["length"] = np.array([length])
        columns["return"] = np.array([float(np.sum(episode["rewards"]))])
        held.append(columns)
        steps += length
        if steps >= BLOCK:
            yield _joined(held)
            held, steps = [], 0
    if held:
        yield _joined(held)


def _joined(episodes: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    columns = {name: np.concatenate([episode[name] for episode in episodes]) for name in episodes[0]}
    for name, values in columns.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise BadRequest(f"the Minari dataset holds values of {name} that are not finite")
    return columns


def export(dataset: Dataset, target: str, env_spec: Any, description: str) -> Path:
    """Write our episodes as the Minari dataset `target`; returns its folder."""
    import minari
    from minari.data_collector import EpisodeBuffer

    if "executed_action" in dataset.columns:
        raise BadRequest(
            "these episodes hold two actions per step, the expert's label and the executed one, and Minari can store only one: "
            "export episodes without env.data.noise and env.data.detours"
        )
    if target in minari.list_local_datasets():
        raise BadRequest(f"there is a Minari dataset {target} already; choose another name, or: minari delete {target}")
    texts = [name for name in dataset.observations if name == "mission"]
    observation_space = spaces.Dict(
        {name: spaces.Text(1024) if name in texts else space for name, space in dataset.spaces.observation.items()}
    )

    def episode(start: int, end: int) -> Any:
        # Minari wants the observation after the last action too. We do not store it, so the last one is repeated.
        rows = np.append(np.arange(start, end), end - 1)
        seen: dict[str, Any] = {name: np.asarray(column[rows]) for name, column in dataset.observations.items()}
        seen |= {name: [text(tokens) for tokens in seen[name]] for name in texts}
        ours = slice(start, end)
        columns = {name: np.asarray(dataset.columns[name][ours]) for name in ("action", "reward", "terminated", "truncated")}
        return EpisodeBuffer(
            observations=seen,
            actions=columns["action"],
            rewards=columns["reward"].tolist(),
            terminations=columns["terminated"].tolist(),
            truncations=columns["truncated"].tolist(),
        )

    buffers = [episode(int(start), int(end)) for start, end in zip(dataset.starts, dataset.ends, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Minari asks for the author's links and addresses, which we do not know
        made = minari.create_dataset_from_buffers(
            target,
            buffers,
            env=env_spec,
            observation_space=observation_space,
            action_space=dataset.spaces.action,
            algorithm_name=str(dataset.meta["recipe"]["source"]),
            description=description,
            jpeg_encoding=False,
        )
    made.storage.update_metadata({MADE_IN: dataset.meta["recipe"]["family"]})
    return Path(made.storage.data_path)
