"""The question in the header of a named study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sweeps.runs import Run

STUDIES = Path(__file__).parent / "study"
BEGINS, ENDS = "Question: ", ("  ", "Cost", "Result")  # a command is indented


def question(runs: Sequence[Run]) -> str:
    """The question of the study that all runs belong to; "" if there is none, or the study is not one of ours."""
    named = {run.study for run in runs if run.setting}
    path = STUDIES / f"{named.pop()}.yaml" if len(named) == 1 else STUDIES
    if not path.is_file():
        return ""
    lines: list[str] = []
    for line in path.read_text().splitlines():
        words = line.removeprefix("#").removeprefix(" ")
        if lines and (not line.startswith("#") or words.startswith(ENDS)):
            break
        if lines or words.startswith(BEGINS):
            lines.append(words.removeprefix(BEGINS))
    text = " ".join(lines)
    return text[:1].upper() + text[1:]
