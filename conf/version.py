"""What ran: the versions of this project and its packages, the code's commit, and its uncommitted changes."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

VERSION = "0.1.0"  # pyproject.toml reads it here
PACKAGES = ("torch", "numpy", "hydra-core", "omegaconf", "gymnasium", "minigrid", "safetensors", "tensorboard")
ROOT = str(Path(__file__).parents[1])
LARGEST_DIFF = 1_000_000  # characters


def versions() -> dict[str, Any]:
    found: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform(), "iolaus": VERSION}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", ROOT)
    return {**found, "git_commit": commit and commit.strip(), "git_dirty": None if changes is None else bool(changes)}


@functools.cache
def of_this_process() -> tuple[dict[str, Any], str]:
    """`versions()` and `uncommitted()`, looked up once. Processes that are forked from this one run the code that it imported,
    whatever has changed on disc since."""
    return versions(), uncommitted()


def version_line() -> str:
    """What `--version` prints: enough for a bug report."""
    found = versions()
    commit = f" ({found['git_commit'][:7]}{', changed' if found['git_dirty'] else ''})" if found["git_commit"] else ""
    return f"iolaus {VERSION}{commit}, Python {found['python']}, " + ", ".join(f"{name} {found[name]}" for name in PACKAGES)


def uncommitted() -> str:
    """The uncommitted changes of the code that runs, up to LARGEST_DIFF; "" if there are none, or no git checkout."""
    changes = _git("diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-color", "--", ROOT) or ""
    if len(changes) <= LARGEST_DIFF:
        return changes
    return changes[:LARGEST_DIFF] + f"\n[cut here: the whole has {len(changes):,} characters]\n"


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None
