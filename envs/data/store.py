"""Episodes on disc: a folder with one `.npy` file per column, and `meta.json`.

    observation.<modality>.npy  action.npy  reward.npy  terminated.npy  truncated.npy    one row per step
    executed_action.npy         only where it can differ from the label `action`
    expert_drives.npy           only where an expert took over from a learner: whether the expert acted in this step
    logp.npy                    only from learners: the log-probability of the action under its source, NaN where unknown
    episode_ends.npy            one row per episode: one past the index of its last step
    episode_hashes.npy          one row per episode: equal for equal episodes
    history_ends.npy            only from learners: one row per history, one past the index of its last step
    meta.json                   the recipe (spaces, source, versions), the expert's score, hashes of the columns
    manifest.json               the hash of meta.json
    verified.json               the files that were verified when the dataset was opened (envs/data/verify.py)

Columns are memory-mapped and never unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from conf.errors import BadRequest
from envs.data.contents import OBSERVATION, refuse_unfit, refuse_wrong
from envs.data.hashes import episode_hashes
from envs.data.verify import MANIFEST, META, Damage, Verified, hash_of, map_column, open_regular, read_meta
from envs.spaces import Spaces

__all__ = ["OBSERVATION", "Dataset", "Writer"]


class Dataset:
    """A finished dataset, read-only. `columns[name]` are arrays over steps, `starts` [E] and `ends` [E] bound the episodes, and
    `history_ends` [H] the histories."""

    def __init__(self, folder: Path):
        """Open the dataset and verify files that were not verified before. BadRequest if a file is not what was written."""
        self.folder = folder
        try:
            self.meta, digest = read_meta(folder)
            self.columns = self._open(Verified(folder, digest))
        except Damage as damage:
            raise BadRequest(f"the dataset {folder} is damaged ({damage}); delete that folder to have it made again") from damage
        except OSError as error:
            raise BadRequest(f"the dataset {folder} cannot be read: {error.strerror or error}") from error
        self.ends = self.columns.pop("episode_ends")  # [E]
        self.history_ends = self.columns.pop("history_ends", self.ends)  # [H] without learners every episode is its own history
        self.starts = np.concatenate([[0], self.ends[:-1]])  # [E]
        self.episode_hashes = self.columns.pop("episode_hashes")  # [E]
        self.observations = {
            name.removeprefix(OBSERVATION): column for name, column in self.columns.items() if name.startswith(OBSERVATION)
        }

    def _open(self, verified: Verified) -> dict[str, np.ndarray]:
        columns, whole = {}, True
        for name, digest in self.meta["columns"].items():
            with open_regular(self.folder / f"{name}.npy") as file:
                if not verified.knows(name, file):
                    whole = False
                    if hash_of(file) != digest:
                        raise Damage(f"{name}.npy is not what was written")
                    file.seek(0)
                columns[name] = map_column(file, name)
        try:
            self.spaces = Spaces.from_json(self.meta["recipe"]["spaces"])
        except Exception as error:  # Gymnasium raises many types for values that make no space
            raise Damage("its spaces cannot be read") from error
        refuse_unfit(columns, self.spaces, self.meta["steps"])
        if not whole:
            refuse_wrong(columns, self.spaces)
            verified.remember()
        return columns

    def __len__(self) -> int:
        return int(self.meta["steps"])

    @property
    def fingerprint(self) -> str:
        """A hash of the contents: equal for equal columns, independent of the folder and the time."""
        return hashlib.sha256(json.dumps(self.meta["columns"], sort_keys=True).encode()).hexdigest()[:12]


class Writer:
    """Appends blocks of rows to columns. Only the current block is in memory."""

    def __init__(self, folder: Path):
        self.folder, self.steps = folder, 0
        self.columns: dict[str, _Column] = {}

    def append_episodes(self, rows: dict[str, np.ndarray], lengths: np.ndarray) -> None:
        """Append whole episodes: columns with one row per step, and each episode's number of steps."""
        observations = {name: column for name, column in rows.items() if name.startswith(OBSERVATION)}
        self.append("episode_hashes", episode_hashes(observations, rows["action"], lengths))
        self.append("episode_ends", self.steps + np.cumsum(lengths))
        for name, column in rows.items():
            self.append(name, column)
        self.steps += int(lengths.sum())

    def append(self, name: str, rows: np.ndarray) -> None:
        if name not in self.columns:
            self.columns[name] = _Column(self.folder / f"{name}.npy", rows.dtype, rows.shape[1:])
        self.columns[name].append(rows)

    def close(self) -> None:
        """Finish the columns' files. No rows can be added after this."""
        self.hashes = {name: column.close() for name, column in self.columns.items()}

    def finish(self, meta: dict[str, Any]) -> None:
        text = json.dumps({**meta, "columns": self.hashes}, indent=2).encode()
        _write(self.folder / META, text)
        _write(self.folder / MANIFEST, json.dumps({META: hashlib.sha256(text).hexdigest()}).encode())

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for column in self.columns.values():
            column.file.close()


def _write(path: Path, text: bytes) -> None:
    with open(path, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


class _Column:
    """A growing `.npy` file. NumPy pads the header so that the first axis can grow; the header is rewritten at the end."""

    def __init__(self, path: Path, dtype: np.dtype, shape: tuple[int, ...]):
        self.path, self.dtype, self.shape, self.rows = path, dtype, shape, 0
        self.file = open(path, "w+b")  # noqa: SIM115  (closed by `close` or by the Writer)
        self.header = self._write_header()

    def _write_header(self) -> int:
        header = io.BytesIO()
        description = np.lib.format.dtype_to_descr(self.dtype)
        np.lib.format.write_array_header_1_0(
            header, {"descr": description, "fortran_order": False, "shape": (self.rows, *self.shape)}
        )
        self.file.seek(0)
        self.file.write(header.getvalue())
        return len(header.getvalue())

    def append(self, rows: np.ndarray) -> None:
        if rows.dtype != self.dtype or rows.shape[1:] != self.shape:
            raise ValueError(f"{self.path.stem}: rows {rows.dtype}{rows.shape[1:]} do not fit {self.dtype}{self.shape}")
        self.file.write(np.ascontiguousarray(rows).data)
        self.rows += len(rows)

    def close(self) -> str:
        """Write the final header, sync to disc, and return the content's hash."""
        assert self._write_header() == self.header, "numpy no longer pads the header for growth"
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.seek(0)
        digest = hashlib.file_digest(self.file, "sha256").hexdigest()
        self.file.close()
        return digest
