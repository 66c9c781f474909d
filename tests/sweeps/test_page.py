"""The report of damaged and mixed folders, its other forms, and its page in a real browser."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conf import again
from conf.folder import claim
from sweeps.findings import report
from sweeps.page import page
from sweeps.report import as_csv, as_markdown, cells
from sweeps.svg import ticks

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def run(folder: Path, config: dict[str, Any], words: list[str], shares: float | None = 0.5) -> Path:
    """A run that is done, of 40 episodes of which a share was solved, with ten rows of metrics."""
    folder.mkdir(parents=True)
    claim(folder, config)
    (folder / "overrides.yaml").write_text(again.as_text(words))
    solved = [number < (shares or 0) * 40 for number in range(40)]
    players = {"sampled": solved, "random": [False] * 40, "optimum": [True] * 40}
    episodes = {name: {"success": won, "return": won, "length": [3] * 40} for name, won in players.items()}
    scores = {name: dict.fromkeys(("success", "return"), sum(won) / 40) for name, won in players.items()}
    record = {
        "split": "test",
        "first_seed": 7,
        "episodes": 40,
        "seen_in_training": 0.0,
        "scores": scores,
        "per_episode": episodes,
    }
    summary = {"seconds": 12.5, "parameters": 1234, "steps": 100}
    for name, value in (("status", {"status": "done"}), ("summary", summary), ("evaluation", record)):
        (folder / f"{name}.json").write_text(json.dumps(value))
    rows = [{"step": 10 * n, "val/success": n / 20, "train/loss": 2 - n / 10 + config["seed"] / 5} for n in range(1, 11)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def sweep(request_for: Callable, tmp_path: Path) -> Path:
    """Two corruptions with three seeds each, of a study."""
    for corruption, level in (("mask", 0.9), ("noise", 0.2)):
        for seed in (0, 1, 2):
            words = [f"policy.corruption={corruption}", f"seed={seed}"]
            config = request_for("policy=masked_dit", *words).config
            run(tmp_path / f"sweep/{corruption}-{seed}", config, [*words, "study=mask_or_noise"], level + seed / 40)
    return tmp_path / "sweep"


def test_the_question_the_curves_and_the_differences(sweep: Path):
    found = report(sweep)
    assert found.question.startswith("Is a hidden slot better shown as a learned [MASK]") and "Cost" not in found.question
    assert [chart.title for chart in found.charts] == ["success on the val split", "loss in training"]
    line = found.charts[1].lines[0]
    assert (line.x[0], line.seeds) == (10, 3) and line.high[0] - line.low[0] == pytest.approx(0.4)
    [pair] = found.comparisons
    assert pair.found.verdict == "higher" and pair.one == ("mask",) and "Welch" in pair.found.test
    assert f"{pair.found.mean:.3f}" == "0.700"
    assert "higher" in as_markdown(found)


def test_a_damaged_file_damages_its_run_alone(sweep: Path):
    (sweep / "mask-0/status.json").write_text('{"status": "do')
    (sweep / "mask-1/evaluation.json").write_text('{"per_episode": {"sampled": {"success": [1], "return": [], "length": [1]}}}')
    (sweep / "noise-0/config.yaml").write_text("seed: [3\n")
    with open(sweep / "noise-1/metrics.jsonl", "a") as file:
        file.write('{"step": 200, "train/lo')
    (sweep / "noise-2/summary.json").write_text("[]")
    found = report(sweep)
    assert found.states["damaged"] == 4 and found.states["done"] == 2
    [mask] = [row for row in found.rows if row.names == ("mask",)]
    assert mask.seeds == {0: "damaged", 1: "damaged", 2: 0.95} and mask.score.seeds == 1
    assert sum(note.startswith("damaged: ") for note in found.notes) == 4
    assert any("status.json cannot be read" in note for note in found.notes)
    assert "damaged" in page(found) and as_csv(found)


def test_looks_are_left_out_and_names_are_those_that_were_typed(request_for: Callable, tmp_path: Path):
    base = request_for("policy=bc_mlp").config
    for name, width in (("small", 8), ("large", 16)):  # two options of one class, as in somebody's --config-dir
        config = {**base, "policy": {**base["policy"], "hidden_dim": width}}
        run(tmp_path / f"sweep/{name}", config, [f"policy={name}"])
    run(tmp_path / "sweep/fdr", base, ["debug=fdr"])
    (tmp_path / "sweep/health").mkdir()
    claim(tmp_path / "sweep/health", {**base, "mode": "health"})
    found = report(tmp_path / "sweep")
    assert found.columns == ["policy"] and [row.names for row in found.rows] == [("large",), ("small",)]
    assert found.notes[-1] == "left out 2 runs of debug=, health or profile"


def test_csv_holds_numbers_that_are_not_rounded(sweep: Path):
    shutil.rmtree(sweep / "noise-2")
    rows = list(csv.DictReader(as_csv(report(sweep)).splitlines()))
    assert [(row["corruption"], row["player"]) for row in rows[:2]] == [("mask", "sampled"), ("noise", "sampled")]
    assert float(rows[0]["seed 1"]) == 0.925 and rows[1]["seed 2"] == "missing"
    assert float(rows[0]["low"]) < float(rows[0]["mean"]) < float(rows[0]["high"])
    assert {row["player"]: float(row["low"]) for row in rows[2:]} == {"random": 0.0, "optimum": 1.0}


def test_a_run_of_fewer_episodes_is_not_joined_with_the_others(sweep: Path):
    record = json.loads((sweep / "mask-0/evaluation.json").read_text())
    record["per_episode"] = {
        name: {key: values[:10] for key, values in score.items()} for name, score in record["per_episode"].items()
    }
    (sweep / "mask-0/evaluation.json").write_text(json.dumps(record))
    [mask] = [row for row in report(sweep).rows if row.names == ("mask",)]
    assert mask.score.seeds == 2


def test_values_of_runs_cannot_write_html(sweep: Path):
    words = ["policy.corruption=mask", "seed=0", "study=</script><b>x"]
    (sweep / "mask-0/overrides.yaml").write_text(again.as_text(words))
    (sweep / "mask-1/status.json").write_text(json.dumps({"status": "failed", "reason": "<img src=http://x>"}))
    text = page(report(sweep))
    assert "<img" not in text and "<b>x" not in text and "&lt;img src=http://x&gt;" in text
    assert len(re.findall("<script", text)) == len(re.findall("</script", text))


def test_ticks_are_round_and_reach_over_the_values():
    assert ticks(0, 1, 5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(3, 97, 5) == [0, 20, 40, 60, 80, 100] and ticks(5, 5, 5) == [5]
    narrow = ticks(0.123, 0.124, 5)
    assert narrow[0] <= 0.123 + 1e-9 and narrow[-1] >= 0.124 - 1e-9


PROBE = """<!doctype html><iframe id=f src="report.html" width=%d height=900 style="border:0"></iframe><script>
onload = () => setTimeout(() => {
  const page = f.contentDocument, root = page.documentElement, svg = page.querySelector("figure svg");
  const box = svg.getBoundingClientRect(), tip = page.querySelector(".tip");
  svg.dispatchEvent(new PointerEvent("pointermove", {clientX: box.left + box.width / 2, clientY: box.top + 9}));
  const said = {wide: root.scrollWidth, figures: page.querySelectorAll("figure").length, tip: tip.textContent,
    shown: tip.style.visibility, right: Math.round(tip.getBoundingClientRect().right), text: page.body.innerText.length,
    color: f.contentWindow.getComputedStyle(page.body).backgroundColor};
  document.body.textContent = "SAID" + JSON.stringify(said) + "DIAS";
}, 50);
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize(
    ("width", "scheme", "background"),
    [pytest.param(1200, 1, "rgb(255, 255, 255)", marks=pytest.mark.slow), (360, 0, "rgb(20, 23, 26)")],
)
def test_the_page_in_a_browser(sweep: Path, tmp_path: Path, width: int, scheme: int, background: str):
    """On a desk in daylight and on a phone at night: nothing wider than the screen, values under the pointer, no complaint."""
    (tmp_path / "report.html").write_text(page(report(sweep)))
    (tmp_path / "probe.html").write_text(PROBE % width)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--enable-logging=stderr"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", f"--blink-settings=preferredColorScheme={scheme}"]
    command = [str(CHROMIUM), *flags, "--virtual-time-budget=3000", "--dump-dom", (tmp_path / "probe.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    said = json.loads(done.stdout[done.stdout.index("SAID") + 4 : done.stdout.index("DIAS")])
    assert said["wide"] <= width and said["figures"] == 2 and said["text"] > 300
    assert said["shown"] == "visible" and "mask" in said["tip"] and said["right"] <= width
    assert said["color"] == background
    assert "CONSOLE" not in done.stderr, done.stderr


def test_every_row_has_a_cell_for_each_heading(sweep: Path):
    from sweeps.report import header

    found = report(sweep)
    assert {len(row) for rows in cells(found) for row in rows} == {len(header(found))}
