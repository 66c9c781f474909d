"""Rows reach their file at once, and bars can be nested."""

from __future__ import annotations

import io
import json
from pathlib import Path

from trainers.record import boards, records


def test_a_row_can_be_read_as_soon_as_it_is_written(tmp_path: Path):
    written = records.Records(tmp_path, boards.Config("none"))
    written.scalars(50, {"train/loss": 1.5})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 50, "train/loss": 1.5}
    written.close()


def test_a_validation_has_a_line_of_its_own_while_it_lasts(monkeypatch):
    output = io.StringIO()
    monkeypatch.setattr(records, "console", records.Screen(force_terminal=True, width=120, file=output))
    with records.bar("train", 100) as train:
        train(40, note="loss 1.2")
        with records.bar("validate", 10) as validation:
            validation(3)
            assert [(task.description, task.completed) for task in train.display.tasks] == [("train", 40), ("validate", 3)]
        assert [task.description for task in train.display.tasks] == ["train"]
        train(41)
    assert "validate" in output.getvalue()
    with records.bar("evaluate", 5) as bar:  # the next one opens a display of its own
        assert bar.display is not train.display
