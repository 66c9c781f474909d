"""Episodes on disc: a folder of flat columns, one `.npy` each, and `meta.json`.

    observation.<modality>.npy  action.npy  reward.npy  terminated.npy  truncated.npy    one row a step
    executed_action.npy         only where it can differ from the label `action`
    logp.npy                    only of learners: the log-probability of the action under its source, NaN where unknown
    episode_ends.npy            one row an episode: the index behind its last step
    history_ends.npy            only of learners: one row a history, the index behind its last step
    meta.json                   the recipe (spaces, source, versions), the expert's score, hashes of the columns

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
from envs.base import Spaces

OBSERVATION = "observation."


class Dataset:
    """A finished dataset, read only. `columns[name]` are arrays over steps; `ends` [E] and `starts` [E] bound the episodes,
    `history_ends` [H] the histories that they lie in."""

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            self.meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
            self.columns = {name: _map(folder / f"{name}.npy") for name in self.meta["columns"]}
            rows = {name: len(column) for name, column in self.columns.items() if name not in ("episode_ends", "history_ends")}
            if set(rows.values()) != {self.meta["steps"]}:
                raise ValueError(f"columns of unequal length: {rows}")
        except (OSError, ValueError, KeyError) as error:
            raise BadRequest(f"the dataset {folder} is damaged ({error}); delete that folder to have it made again") from error
        self.spaces = Spaces.from_json(self.meta["recipe"]["spaces"])
        self.ends = self.columns.pop("episode_ends")  # [E]
        self.history_ends = self.columns.pop("history_ends", self.ends)  # [H] without learners every episode is one of its own
        self.starts = np.concatenate([[0], self.ends[:-1]])  # [E]
        self.observations = {
            name.removeprefix(OBSERVATION): column for name, column in self.columns.items() if name.startswith(OBSERVATION)
        }

    def __len__(self) -> int:
        return int(self.meta["steps"])

    @property
    def fingerprint(self) -> str:
        """Of the contents: equal for equal columns, wherever they lie and whenever they were made."""
        return hashlib.sha256(json.dumps(self.meta["columns"], sort_keys=True).encode()).hexdigest()[:12]


def _map(path: Path) -> np.ndarray:
    column = np.load(path, mmap_mode="r", allow_pickle=False)
    if (size := path.stat().st_size) != (promised := column.offset + column.nbytes):
        raise ValueError(f"{path.name} has {size:,} bytes, its header promises {promised:,}")
    return np.asarray(column)  # a plain view: indexing an np.memmap itself costs several times as much


class Writer:
    """Appends blocks of rows to columns; nothing but the present block is held in memory."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.columns: dict[str, _Column] = {}

    def append(self, name: str, rows: np.ndarray) -> None:
        if name not in self.columns:
            self.columns[name] = _Column(self.folder / f"{name}.npy", rows.dtype, rows.shape[1:])
        self.columns[name].append(rows)

    def close(self) -> None:
        """No more rows: the columns are whole files now, and can be read."""
        self.hashes = {name: column.close() for name, column in self.columns.items()}

    def finish(self, meta: dict[str, Any]) -> None:
        with open(self.folder / "meta.json", "w") as file:
            json.dump({**meta, "columns": self.hashes}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for column in self.columns.values():
            column.file.close()


class _Column:
    """One growing `.npy`. NumPy pads its header so that the first axis may grow: the header is rewritten at the end."""

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
        """Write the final header, reach the disc, and return the content's hash."""
        assert self._write_header() == self.header, "numpy no longer pads the header for growth"
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.seek(0)
        digest = hashlib.file_digest(self.file, "sha256").hexdigest()
        self.file.close()
        return digest
