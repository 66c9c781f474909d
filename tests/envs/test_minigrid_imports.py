"""Packages that minigrid needs for a few environments only are executed when they are used."""

import importlib
import sys
from pathlib import Path

import pytest

from envs.minigrid import _import_when_used


@pytest.mark.parametrize("first", ["value", "part"])
def test_a_package_is_executed_at_its_first_use(first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "their_graphs").mkdir()
    (tmp_path / "their_graphs/__init__.py").write_text("value = 3\nfrom their_graphs import part\n")
    (tmp_path / "their_graphs/part.py").write_text("import their_graphs\nown = their_graphs.value\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("their_graphs", "their_graphs.part"):  # of the test before
        sys.modules.pop(name, None)
    _import_when_used("their_graphs")
    module = importlib.import_module("their_graphs")
    assert "value" not in vars(module) and "their_graphs.part" not in sys.modules
    if first == "part":  # its parent is executed before it
        assert importlib.import_module("their_graphs.part").own == 3
    assert module.value == 3 and module.part.own == 3 and module is sys.modules["their_graphs"]
    with pytest.raises(AttributeError):
        module.nothing  # noqa: B018


def test_what_is_not_installed_stays_so():
    _import_when_used("no_such_package")
    assert "no_such_package" not in sys.modules
