"""A report as a table on a terminal, as Markdown, and as CSV; the page is in sweeps/page.py."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from conf.errors import BadRequest
from sweeps.findings import Comparison, Report, Row, as_plain, between, named, report
from sweeps.page import page
from sweeps.settings import ABSENT, Names

WIDTH = 110  # of the table if the output is not a terminal
TOLD = 5  # most comparisons on a terminal; the page has all
DIFFER = "*"  # marks intervals where seeds differ


def show(folder: Path, form: str = "table") -> None:
    """Print the report of a sweep: as a table (the files are then written too), markdown, csv, json, or write html alone."""
    found = report(folder)
    if form == "markdown":
        print(as_markdown(found))
    elif form == "csv":
        print(as_csv(found), end="")
    elif form == "json":
        print(json.dumps(as_plain(found), indent=1))
    elif form == "html":
        print(_written(folder / "report.html", page(found)))
    else:
        console = Console(width=None if sys.stdout.isatty() else WIDTH)
        print_line = lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)  # noqa: E731
        print_line(f"\n{found.title}")
        if found.question:
            print_line(found.question)
        console.print(as_table(header(found), cells(found), len(header(found)) - 4 * (not found.health)))
        for division, (head, rows) in group_tables(found).items():
            print_line(f"by {division}, each seed and their mean")
            console.print(as_table(head, rows, len(found.columns) + 3))
        for note in found.notes:
            print_line(note)
        if found.comparisons:
            print_line(tested(found))
        for pair in found.comparisons[:TOLD]:
            print_line(f"  {sentence(found, pair)}")
        if not found.health:
            for name, text in {"report.md": as_markdown(found), "report.csv": as_csv(found), "report.html": page(found)}.items():
                _written(folder / name, text)
            print_line(f"report       {folder / 'report.html'} (and .md, .csv)")


def header(found: Report) -> list[str]:
    if found.health:
        return [*found.columns, "seed", "warnings", "about"]
    scores = f"{found.measure}, seed{'s' if len(found.seeds) > 1 else ''} {' '.join(map(str, found.seeds))}"
    return [*found.columns, "acting", scores, "mean (95 %)", "steps", "training s", "parameters"]


def cells(found: Report) -> list[list[list[str]]]:
    """The rows of each setting, with shared values in its first row, then the references."""
    if found.health:
        return health_cells(found)
    groups: list[list[list[str]]] = []
    before: Names | None = None
    for row in found.rows:
        first = row.names != before
        if first:
            groups.append([])
        before = row.names
        names = [*row.names] if first else [""] * len(row.names)
        seeds = [f"{score:.3f}" if isinstance(score, float) else score for score in row.seeds.values()]
        cost = [f"{row.seconds:.0f}" if row.seconds is not None else ABSENT, between(row.parameters, "{:,}")]
        steps = between(row.steps, "{:.1f}")
        groups[-1].append(
            [*names, row.player, " ".join(seeds), scored(row, len(found.seeds)), steps, *(cost if first else ["", ""])]
        )
    references = [
        [*row.names, row.player, "", between(row.spread or (), "{:.3f}"), between(row.steps, "{:.1f}"), "", ""]
        for row in found.references
    ]
    return [*groups, references]


def health_cells(found: Report) -> list[list[list[str]]]:
    """The findings of the checks before the first step, by run."""
    groups: list[list[list[str]]] = []
    for row in found.rows:
        groups.append([])
        for run in row.runs:
            look = run.summary.get("look")
            words = [run.status, ""] if look is None else [str(len(look)), ", ".join(look) or ABSENT]
            groups[-1].append([*row.names, str(run.seed), *words])
    return groups


def scored(row: Row, seeds: int) -> str:
    if row.score is None:
        return ABSENT
    score = row.score
    limits = f"{score.low:.3f}-{score.high:.3f}" if score.low >= 0 else f"{score.low:.3f} to {score.high:.3f}"
    fewer = f", {score.seeds} of {seeds} seeds" if score.seeds < seeds else ""
    return f"{score.mean:.3f} ({limits}){DIFFER if score.seeds_differ else ''}{fewer}"


def sentence(found: Report, pair: Comparison) -> str:
    one, other, gap = named(found.columns, pair.one), named(found.columns, pair.other), pair.found
    return f"{one} against {other}: {gap.mean:+.3f} ({gap.low:+.3f} to {gap.high:+.3f}), {gap.verdict}"


def tested(found: Report) -> str:
    tests = ", or ".join(dict.fromkeys(pair.found.test for pair in found.comparisons))
    return f"differences on the same episodes, each pair by itself ({tests}):"


def group_tables(found: Report) -> dict[str, tuple[list[str], list[list[list[str]]]]]:
    """{way to divide the episodes: heading and rows of its table}."""
    tables = {}
    for division, rows in found.groups.items():
        references = list(dict.fromkeys(name for row in rows for name in row.references))
        head = [*found.columns, "acting", division, "seeds", "mean", *references, "episodes"]
        shown = [
            [*row.names, row.player, row.group, " ".join(f"{score:.3f}" for score in row.seeds.values()), f"{row.mean:.3f}"]
            + [f"{row.references[name]:.3f}" if name in row.references else ABSENT for name in references]
            + [str(row.episodes)]
            for row in rows
        ]
        tables[division] = (head, [shown])
    return tables


def as_table(head: Sequence[str], groups: Sequence[Sequence[Sequence[str]]], words: int) -> Table:
    """`words` columns are texts; numbers follow."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(head):
        table.add_column(Text(name), justify="left" if number < words else "right", overflow="fold")
    for rows in groups:
        for row in rows:
            table.add_row(*map(Text, row))
        table.add_section()
    return table


def as_markdown(found: Report) -> str:
    lines = _markdown_table(header(found), cells(found))
    notes = [*found.notes]
    for division, (head, rows) in group_tables(found).items():
        notes.append("\n".join([f"By {division}, each seed and their mean:\n", *_markdown_table(head, rows)]))
    if found.comparisons:
        notes.append(tested(found) + "\n" + "".join(f"\n- {sentence(found, pair)}" for pair in found.comparisons))
    asks = [found.question, ""] if found.question else []
    return "\n".join([*asks, *lines, *(f"\n{note}" for note in notes)])


def as_csv(found: Report) -> str:
    """One line for each setting and way of acting, and for each reference; numbers are not rounded."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    seeds = [f"seed {seed}" for seed in found.seeds]
    numbers = ["mean", "low", "high", "seeds", "seeds_differ", "steps", "seconds", "parameters"]
    writer.writerow([*found.columns, "player", "measure", *numbers, *seeds])
    for row in [*found.rows, *found.references]:
        score, limits = row.score, row.spread or (None, None)
        mean = (score.mean, score.low, score.high, score.seeds, score.seeds_differ) if score else (None, *limits, None, None)
        rest = [row.steps[0] if row.steps else None, row.seconds, row.parameters[0] if row.parameters else None]
        writer.writerow([*row.names, row.player, found.measure, *mean, *rest, *(row.seeds.get(seed) for seed in found.seeds)])
    return text.getvalue()


def _markdown_table(head: Sequence[str], groups: Sequence[Sequence[Sequence[str]]]) -> list[str]:
    return [_markdown_row(head), "|---" * len(head) + "|", *(_markdown_row(row) for rows in groups for row in rows)]


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _written(path: Path, text: str) -> Path:
    try:
        path.write_text(text)
    except OSError as error:
        raise BadRequest(f"cannot write {path} ({error.strerror}); --markdown, --csv and --json print instead") from error
    return path
