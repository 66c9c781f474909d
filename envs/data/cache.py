"""One folder per recipe. It is made once, even if several processes ask for it at the same time."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conf.errors import BadRequest


def address(recipe: dict[str, Any], prefix: str) -> str:
    """A folder name that changes with anything in the recipe. Characters of the prefix that no folder name may have become -."""
    canonical = json.dumps(recipe, sort_keys=True, separators=(",", ":"))
    return f"{re.sub(r'[^A-Za-z0-9_.+-]', '-', prefix)}-{hashlib.sha256(canonical.encode()).hexdigest()[:12]}"


def obtain(root: Path, name: str, make: Callable[[Path], None], waiting: Callable[[], None] = lambda: None) -> Path:
    """The folder root/name. If it does not exist yet, `make(folder)` fills it.

    It is made under a temporary name and renamed when complete, so nobody sees a half-made folder. Other processes wait on a
    lock, which the kernel releases when its holder dies. `waiting` is called before a wait.
    """
    final = root / name
    try:
        if final.exists():
            return final
        root.mkdir(parents=True, exist_ok=True)
        lock = open(root / f".{name}.lock", "a")  # noqa: SIM115  (closed by the next `with`)
    except OSError as error:
        raise BadRequest(f"cannot keep data in {root} ({error.strerror}); choose another place with data_dir=...") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        if final.exists():  # made while we waited
            return final
        for remains in root.glob(f".{name}.tmp-*"):  # left by killed processes: only the holder of the lock makes such folders
            shutil.rmtree(remains, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{name}.tmp-", dir=root))
        try:
            make(folder)
            folder.chmod(0o755)  # mkdtemp's own mode would lock colleagues out of a shared data folder
            os.rename(folder, final)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(root)  # so that the message names the full disc
            raise
    return final
