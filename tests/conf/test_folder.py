"""Which folder a run gets, which it may go on in, and what it refuses to write to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from conf import folder
from conf.check import Request
from conf.errors import BadRequest


def begin(request: Request, place: Path) -> Path:
    folder.make(place)
    (place / "log.txt").touch()
    folder.describe(place, request.config, [])
    return place


def test_identity_is_what_is_computed(ask: Any) -> None:
    same = [
        ask(),
        ask("device=cpu", "tags=[a]", "logger=none", "name=x", "data_dir=/d"),
        ask("trainer.max_steps=2e3"),
        ask("trainer.keep_checkpoints=0"),
    ]
    assert len({folder.identity(request.config) for request in same}) == 1
    other = [ask("seed=1"), ask("policy.layers=3"), ask("env.data.seed=1"), ask("encoder=conv")]
    assert len({folder.identity(request.config) for request in [*same, *other]}) == 5


def test_resume_finds_the_newest_run_of_its_own(ask: Any) -> None:
    request, other = ask(), ask("seed=1")
    first = begin(request, folder.choose(request.config, folder.AUTO))
    second = begin(request, first.with_name(f"9{first.name}"))  # a later time
    begin(other, first.with_name(f"99-{folder.identity(other.config)}"))
    assert folder.choose(ask("resume=true").config, folder.AUTO) == second
    with pytest.raises(BadRequest, match=r"has this configuration; the nearest, [\w-]+, differs in policy.layers"):
        folder.choose(ask("resume=true", "policy.layers=3").config, folder.AUTO)
    with pytest.raises(BadRequest, match="there is no run in runs/new to resume"):
        folder.choose(ask("resume=true", "name=new").config, folder.AUTO)


def test_folder_of_another_run_is_refused(ask: Any, tmp_path: Path) -> None:
    mine = begin(ask(), tmp_path / "mine")
    before = sorted((path.name, path.read_bytes()) for path in mine.iterdir())
    for words, sentence in ((["seed=1"], "is not empty; add resume=true"), (["seed=1", "resume=true"], "differs in seed")):
        with pytest.raises(BadRequest, match=sentence):
            folder.choose(ask(*words).config, str(mine))
    assert folder.choose(ask("resume=true", "device=cpu").config, str(mine)) == mine
    folder.describe(mine, ask("resume=true", "device=cpu").config, ["resume=true"])
    assert sorted((path.name, path.read_bytes()) for path in mine.iterdir()) == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    for words in ([], ["resume=true"]):
        with pytest.raises(BadRequest, match=r"holds no run .* choose another hydra.run.dir"):
            folder.choose(ask(*words).config, str(tmp_path / "full"))
    with pytest.raises(BadRequest, match="is a file"):
        folder.choose(ask().config, str(tmp_path / "full" / "thesis.tex"))


def test_two_runs_in_one_second_get_two_folders(tmp_path: Path) -> None:
    assert [folder.make(tmp_path / "run", fresh=True).name for _ in range(3)] == ["run", "run-2", "run-3"]


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadRequest, match=r"cannot write to .*; choose another place"):
        folder.make(tmp_path / "file" / "run")


def test_a_budget_may_grow_where_the_schedule_does_not_end_with_it(ask: Any, tmp_path: Path) -> None:
    constant = ("trainer.schedule.name=constant", "resume=true")
    begin(ask(*constant), tmp_path / "run")
    longer = ask(*constant, "trainer.max_steps=3000")
    assert folder.choose(longer.config, str(tmp_path / "run")) == tmp_path / "run"
    folder.describe(tmp_path / "run", longer.config, [])
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["trainer"]["max_steps"] == 3000
    with pytest.raises(BadRequest, match=r"was given 3000 steps; trainer.max_steps=2000 cannot be fewer"):
        folder.choose(ask(*constant).config, str(tmp_path / "run"))
    begin(ask(), tmp_path / "cosine")
    with pytest.raises(BadRequest, match=r"ends at its 2000 steps, .* start another run from its weights: init_from="):
        folder.choose(ask("resume=true", "trainer.max_steps=3000").config, str(tmp_path / "cosine"))


@pytest.mark.parametrize("name", [".lock", "log.txt", "metrics.jsonl", "media", "checkpoints/step-1"])
def test_a_run_does_not_write_through_links(ask: Any, tmp_path: Path, name: str) -> None:
    run = begin(ask(), tmp_path / "run")
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadRequest, match=f"{name} is a link"):
        folder.choose(ask("resume=true").config, str(run))
