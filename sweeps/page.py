"""A report as one HTML file that needs no network: drawings as SVG, light and dark mode, for large and small screens."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from sweeps.findings import ACTING, FINE, Report, Row, between, named
from sweeps.runs import Run
from sweeps.settings import ABSENT, Names
from sweeps.svg import COLORS, chart, whisker

HERE = Path(__file__).parent
NO_NETWORK = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def page(found: Report) -> str:
    colors = {names: number % COLORS for number, names in enumerate(dict.fromkeys(row.names for row in found.rows))}
    title = found.folder.resolve().name
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lede">{escape(found.question)}</p>' if found.question else "",
        states(found),
        *scores(found, colors),
        *importance(found),
        *differences(found),
        *curves(found, colors),
        *run_details(found),
        f'<p class="soft">python -m sweeps report {escape(str(found.folder))}</p>',
    ]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{NO_NETWORK}">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{(HERE / 'page.css').read_text()}</style></head><body>",
            *filter(None, parts),
            f"<script>\n{(HERE / 'page.js').read_text()}</script></body></html>\n",
        ]
    )


def states(found: Report) -> str:
    shown = (f'<span class="{_class(status)}">{number} {escape(status)}</span>' for status, number in found.states.items())
    return f'<p class="states">{"".join(shown)}</p>'


def scores(found: Report, colors: dict[Names, int]) -> Iterator[str]:
    """The table. All intervals are drawn on the same scale, with the seeds as dots and the references as lines."""
    yield "<h2>Scores</h2>"
    scale, references = limits(found), [row.spread[0] for row in found.references if row.spread]
    names = "".join(f"<th>{escape(name)}</th>" for name in found.columns)
    axis = f"{scale[0]:.3g} to {scale[1]:.3g}"
    seeds = f"<th>seed{'s' * (len(found.seeds) > 1)} {' '.join(map(str, found.seeds))}</th>"
    numbers = '<th class="number">steps</th><th class="number">training s</th><th class="number">parameters</th>'
    yield f'<div class="scroll"><table><thead><tr>{names}<th></th><th class="number">mean {escape(found.measure)}</th>'
    yield f"<th>95 %, {axis}</th>{seeds}{numbers}</tr></thead><tbody>"
    before: Names | None = None
    for row in found.rows:
        first, before = row.names != before, row.names
        yield f"<tr>{''.join(setting_cells(row, colors[row.names], first))}"
        yield f'<td class="number">{mean(row)}</td><td>{whisker(row, scale, references, colors[row.names])}</td>'
        yield f"<td>{' '.join(seed_words(row))}</td>"
        cost = [between(row.steps, "{:.1f}")]
        cost += ["" if row.seconds is None else f"{row.seconds:.0f}", between(row.parameters, "{:,}")] if first else ["", ""]
        yield "".join(f'<td class="number">{text}</td>' for text in cost) + "</tr>"
    for row in found.references:
        cells = "".join(f"<td>{escape(name)}</td>" for name in row.names)
        spread, steps = between(row.spread or (), "{:.3f}"), between(row.steps, "{:.1f}")
        yield f'<tr class="reference">{cells}<td>{escape(row.player)}</td><td class="number">{spread}</td><td></td><td></td>'
        yield f'<td class="number">{steps}</td><td></td><td></td></tr>'
    yield "</tbody></table></div>"
    yield f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in found.notes)}</ul>'


def setting_cells(row: Row, color: int, first: bool) -> Iterator[str]:
    for number, name in enumerate(row.names):
        mark = f'<span class="swatch" style="background:var(--c{color})"></span>' if number == 0 else ""
        yield f"<td>{mark}{escape(name)}</td>" if first else "<td></td>"
    yield f"<td>{escape(row.player)}</td>"


def seed_words(row: Row) -> Iterator[str]:
    for score in row.seeds.values():
        if isinstance(score, float):
            yield f"{score:.3f}"
        else:
            yield escape(score) if score in FINE else f'<span class="bad">{escape(score)}</span>'


def mean(row: Row) -> str:
    if row.score is None:
        return ABSENT
    star = "*" if row.score.seeds_differ else ""
    return f'{row.score.mean:.3f}{star} <span class="soft">({row.score.low:.3f} to {row.score.high:.3f})</span>'


def limits(found: Report) -> tuple[float, float]:
    """The scale of all intervals: 0 to 1 for success, else from the lowest to the highest value."""
    values = [value for row in found.rows if row.score for value in (row.score.low, row.score.high)]
    values += [value for row in found.references if row.spread for value in row.spread]
    if found.measure == "success" or not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def importance(found: Report) -> Iterator[str]:
    """For a search: a bar for each parameter's importance."""
    if not found.search or not found.search.importance:
        return
    yield '<h2>Importance of what was searched</h2><div class="scroll"><table><tbody>'
    for name, share in found.search.importance.items():
        bar = f'<div class="bar" style="width:{share:.1%}"></div>'
        yield f'<tr><td>{escape(name)}</td><td class="number">{share:.0%}</td><td class="wide">{bar}</td></tr>'
    yield "</tbody></table></div>"
    yield '<p class="soft">How much of what sets the best tenth of the trials apart each explains (PED-ANOVA).</p>'


def differences(found: Report) -> Iterator[str]:
    pairs = found.comparisons
    if not pairs:
        return
    tests = ", or ".join(dict.fromkeys(pair.found.test for pair in pairs))
    yield '<h2>Differences on the same episodes</h2><div class="scroll"><table>'
    yield '<thead><tr><th>setting</th><th>against</th><th class="number">difference (95 %)</th><th></th></tr></thead><tbody>'
    for pair in pairs:
        gap = pair.found
        numbers = f'{gap.mean:+.3f} <span class="soft">({gap.low:+.3f} to {gap.high:+.3f})</span>'
        one, other = (escape(named(found.columns, names)) for names in (pair.one, pair.other))
        yield f'<tr><td>{one}</td><td>{other}</td><td class="number">{numbers}</td><td>{gap.verdict}</td></tr>'
    yield f'</tbody></table></div><p class="soft">Test: {escape(tests)}; each pair by itself.</p>'


def curves(found: Report, colors: dict[Names, int]) -> Iterator[str]:
    if not found.charts:
        return
    shown = dict.fromkeys(line.names for one in found.charts for line in one.lines)
    swatch = '<span class="swatch" style="background:var(--c{})"></span>'
    legend = "".join(f"<span>{swatch.format(colors[names])}{escape(named(found.columns, names))}</span>" for names in shown)
    left_out = max(one.left_out for one in found.charts)
    more = f"; {left_out} settings more are not shown" if left_out else ""
    words = f"Mean of the seeds, and from the lowest to the highest of them{more}."
    yield f'<h2>Learning curves</h2><p class="soft">{words}</p>'
    yield f'<div class="legend">{legend}</div><div class="charts">'
    for one in found.charts:
        yield chart(one, colors, {names: named(found.columns, names) for names in shown})
    yield "</div>"


def run_details(found: Report) -> Iterator[str]:
    yield "<h2>Runs</h2>"
    for run in sorted(found.runs, key=lambda run: run.folder.name):
        words = f"{escape(run.folder.name)} <span class='soft'>seed {run.seed}, {escape(run.status)}</span>"
        yield f"<details{'' if run.status in FINE else ' open'}><summary>{words}</summary><dl>"
        for name, value in facts(run):
            yield f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
        yield "</dl></details>"


def facts(run: Run) -> Iterator[tuple[str, str]]:
    yield "folder", str(run.folder)
    if run.reason:
        yield "reason", run.reason
    for name in ("steps", "seconds", "samples_per_second", "parameters"):
        if isinstance(value := run.summary.get(name), (int, float)):
            yield name.replace("_", " "), f"{value:,.0f}"
    for player, score in run.evaluation.get("scores", {}).items():
        means = (f"{key} {score[key]:.3f}" for key in ("success", "return") if score.get(key) is not None)
        yield player if player not in ACTING else f"{player} acting", ", ".join(means)
    for key in sorted(run.asked - {"hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.mode", "resume", "seed"}):
        if key in run.setting:
            yield key, run.setting[key]


def _class(status: str) -> str:
    return "good" if status in FINE else "bad"
