"""The message if PyBullet cannot be imported."""

from __future__ import annotations

import importlib.util

import pytest

from envs.push import Config, Push
from envs.push import family as module


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(module.sys, "version_info", (3, 11, 7))
    monkeypatch.setattr(module.sys, "platform", "linux")
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    assert "pip install 'iolaus[push]'" in str(Push.accepts(Config()))
    monkeypatch.setattr(module.sys, "version_info", (3, 13, 0))
    assert "Use Python 3.11 on Linux x86_64" in str(Push.accepts(Config()))
