"""The table of a running sweep, on a terminal and without one."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from sweeps.state import State
from sweeps.table import Board, headline, table

RUNS = [
    State(Path("seed=0-abcdef"), "done", {"step": 9, "steps": 9, "loss": 0.25, "success": 0.5}),
    State(Path("seed=1-abcdef"), "running", {"step": 1200, "steps": 5000, "loss": 1.5, "doing": "training", "left": 300}),
    State(Path("seed=2-abcdef"), "failed", {"reason": "ZeroDivisionError: division by zero"}),
    State(Path("seed=3-abcdef"), "pending", {}),
]


def shown(rows: int | None = None) -> str:
    screen = Console(file=io.StringIO(), width=110)
    screen.print(table(RUNS, rows))
    return screen.file.getvalue()  # type: ignore[attr-defined]


def test_every_run_has_its_row():
    lines = {line.split()[0]: line for line in shown().splitlines() if line.strip().startswith("seed=")}
    assert lines.keys() == {"seed=0", "seed=1", "seed=2", "seed=3"}
    assert all(word in lines["seed=1"] for word in ("running", "training", "1,200/5,000", "1.500", "5 min"))
    assert "0.500" in lines["seed=0"] and "division by zero" in lines["seed=2"]


def test_a_small_terminal_shows_what_runs_and_what_failed():
    text = shown(rows=3)
    assert "seed=1" in text and "seed=2" in text and "seed=0" not in text and "and 1 done, 1 pending" in text
    assert headline(RUNS, 600) == "1 of 4 done, 1 running, 1 failed, 1 pending, about 10 min left"


def test_the_board_refreshes_on_a_terminal_and_prints_lines_elsewhere(monkeypatch):
    for terminal in (True, False):
        screen = Console(file=io.StringIO(), width=110, height=20, force_terminal=terminal, color_system=None)
        monkeypatch.setattr("sweeps.table.console", lambda: screen)  # noqa: B023
        with Board(lambda: (RUNS, 600.0)) as board:
            board.shown = -1e9  # long ago
            board.refresh()
            board.say("1 of 4  seed=0  done after 3 s")
        text = screen.file.getvalue()  # type: ignore[attr-defined]
        assert "1 of 4 done, 1 running" in text and "seed=0  done after 3 s" in text
        assert ("1,200/5,000" in text) == terminal
