"""What a run writes down of the code that ran."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from conf import version


def test_uncommitted_changes_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@x"]
    (tmp_path / "code.py").write_text("before\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True, timeout=120)
    monkeypatch.setattr(version, "ROOT", str(tmp_path))
    assert version.uncommitted() == ""
    (tmp_path / "code.py").write_text("after\n")
    assert "-before\n+after\n" in version.uncommitted()
    monkeypatch.setattr(version, "LARGEST_DIFF", 50)
    assert "[cut here: the whole has" in version.uncommitted() and len(version.uncommitted()) < 120
    monkeypatch.setattr(version, "ROOT", str(tmp_path.parent))
    assert version.uncommitted() == ""
