"""A copy of the current code, so that later edits do not affect waiting jobs."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("conf", "envs", "hydra_plugins", "policies", "sweeps", "trainers")


def snapshot(into: Path) -> Path:
    """Copy the code, unless the same code was copied before; returns the folder."""
    files = sorted(_files())
    mark = hashlib.sha256()
    for path in files:
        mark.update(str(path).encode() + b"\0" + (ROOT / path).read_bytes() + b"\0")
    place = into / mark.hexdigest()[:12]
    if place.exists():
        return place
    temporary = into / f".{place.name}.{os.getpid()}.tmp"
    for path in files:
        (temporary / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, temporary / path)
    os.replace(temporary, place)
    return place


def _files() -> list[Path]:
    """The files that git tracks or would add; for an installed project, its packages."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "launch.py", *PACKAGES]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        names = [Path(name) for name in done.stdout.split("\0") if name] if done.returncode == 0 else []
    except (OSError, subprocess.TimeoutExpired):
        names = []
    names = names or [path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*")] + [
        Path("launch.py")
    ]
    return [path for path in names if (ROOT / path).is_file() and path.suffix in (".py", ".yaml", ".css", ".js")]
