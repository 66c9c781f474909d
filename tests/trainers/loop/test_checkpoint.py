from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from conf.checkpoint import write_manifest
from conf.errors import BadRequest
from policies.store import write_tensors
from trainers.loop import checkpoint

STATE = {"data": "d", "threads": 1, "metrics_offset": 0, "seconds": 0.0, "sums": {}, "said": {}, "schedule": {}}


def save(root: Path, step: int, best_step: int = 1, keep: int = 2) -> Path:
    def write(folder: Path) -> None:
        (folder / "policy.json").write_text("{}")
        (folder / "config.yaml").write_text("{}")
        write_tensors(folder / "policy.safetensors", {"a": torch.full((3,), float(step))})

    return checkpoint.save(
        root, step, write, {"weight/a": torch.full((3,), float(step))}, {**STATE, "step": step, "best_step": best_step}, keep
    )


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


def test_the_newest_two_and_the_best_are_kept(tmp_path):
    for step in range(1, 6):
        save(tmp_path, step, best_step=2 if step > 1 else 1)
    assert names(tmp_path) == {"step-2", "step-4", "step-5", "last", "best"}
    assert os.readlink(tmp_path / "last") == "step-5" and os.readlink(tmp_path / "best") == "step-2"


@pytest.mark.parametrize(("keep", "kept"), [(0, {1, 2, 3, 4, 5}), (1, {2, 5}), (3, {2, 3, 4, 5})])
def test_how_many_are_kept_is_configurable(keep: int, kept: set[int], tmp_path: Path):
    for step in range(1, 6):
        save(tmp_path, step, best_step=2 if step > 1 else 1, keep=keep)
    assert names(tmp_path) - {"last", "best"} == {f"step-{step}" for step in kept}


def test_what_was_saved_comes_back(tmp_path):
    save(tmp_path, 7, best_step=7)
    found = checkpoint.newest(tmp_path, pytest.fail)
    assert found is not None
    assert torch.equal(found.tensors["weight/a"], torch.full((3,), 7.0)) and found.state == {**STATE, "step": 7, "best_step": 7}


def test_nothing_is_there(tmp_path):
    assert checkpoint.newest(tmp_path / "checkpoints", pytest.fail) is None


@pytest.mark.parametrize(
    "name", ["training.safetensors", "state.json", "policy.json", "policy.safetensors", "config.yaml", "manifest.json"]
)
@pytest.mark.parametrize("harm", ["cut", "flipped", "gone"])
def test_a_damaged_one_is_put_aside_and_the_one_before_is_used(tmp_path, name, harm):
    save(tmp_path, 1)
    file = save(tmp_path, 2) / name
    content = file.read_bytes()
    if harm == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-1] if harm == "cut" else bytes([content[0] ^ 1]) + content[1:])
    messages: list[str] = []
    found = checkpoint.newest(tmp_path, messages.append)
    assert found is not None and found.state["step"] == 1
    assert len(messages) == 1 and "damaged" in messages[0]
    assert "damaged-1-step-2" in names(tmp_path)  # nothing is deleted
    assert os.readlink(tmp_path / "last") == "step-1"


def test_all_damaged_is_an_error(tmp_path):
    (save(tmp_path, 1) / "state.json").unlink()
    for _ in range(2):  # asking again must not find an empty folder to start over in
        with pytest.raises(BadRequest, match="damaged"):
            checkpoint.newest(tmp_path, lambda text: None)
    assert "step-1" in names(tmp_path)


def test_the_same_step_may_be_damaged_twice(tmp_path):
    save(tmp_path, 1)
    for _ in range(2):
        (save(tmp_path, 2) / "policy.json").write_text("torn")
        found = checkpoint.newest(tmp_path, lambda text: None)
        assert found is not None and found.state["step"] == 1
    assert {"damaged-1-step-2", "damaged-2-step-2"} <= names(tmp_path)


def test_a_save_that_fails_leaves_what_was_there(tmp_path):
    save(tmp_path, 1)

    def full(folder: Path) -> None:
        (folder / "policy.json").write_text("{}")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="space"):
        checkpoint.save(tmp_path, 2, full, {}, {"step": 2, "best_step": 2}, 2)
    assert names(tmp_path) == {"step-1", "last", "best"}
    assert checkpoint.newest(tmp_path, pytest.fail) is not None


def test_links_are_mended_after_a_kill_between_the_folder_and_its_links(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2, best_step=2)
    for link in ("last", "best"):
        (tmp_path / link).unlink()
        (tmp_path / link).symlink_to("step-1")
    checkpoint.newest(tmp_path, pytest.fail)
    assert os.readlink(tmp_path / "last") == os.readlink(tmp_path / "best") == "step-2"


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("state.json", "[]", "state.json is not a JSON object"),
        ("state.json", "null", "state.json is not a JSON object"),
        ("state.json", "{}", "state.json: step is None"),
        ("state.json", '{"step": "x"}', "state.json: step is x"),
        ("state.json", '{"step": -5}', "state.json: step is -5"),
        ("state.json", '{"step": NaN}', "state.json holds NaN"),
        ("state.json", '{"step": 1e30}', "state.json: step is 1e+30"),
        ("state.json", "[" * 100_000, "state.json is not JSON"),
        ("training.safetensors", "a pickle", "training.safetensors"),
        ("policy.safetensors", "a pickle", "policy.safetensors"),
        ("manifest.json", "{}", "manifest.json does not name policy.json"),
        ("manifest.json", "[]", "manifest.json is not a JSON object"),
        ("manifest.json", "5", "manifest.json is not a JSON object"),
    ],
)
def test_a_whole_manifest_vouches_for_nothing(tmp_path, name, content, fault):
    save(tmp_path, 1)
    folder = save(tmp_path, 2)
    (folder / name).write_text(content)
    if name != "manifest.json":
        (folder / "manifest.json").unlink()
        write_manifest(folder)
    messages: list[str] = []
    found = checkpoint.newest(tmp_path, messages.append)
    assert found is not None and found.state["step"] == 1
    [message] = messages
    assert f"step-2 is damaged ({fault}" in message


@pytest.mark.parametrize("kind", ["pipe", "link", "directory"])
def test_only_files_are_read(tmp_path, kind):
    save(tmp_path, 1)
    place = save(tmp_path, 2) / "policy.safetensors"
    place.unlink()
    {"pipe": os.mkfifo, "link": lambda path: path.symlink_to("/dev/zero"), "directory": Path.mkdir}[kind](place)
    messages: list[str] = []
    found = checkpoint.newest(tmp_path, messages.append)
    assert found is not None and found.state["step"] == 1 and "policy.safetensors is" in messages[0]


def test_what_is_no_checkpoint_is_put_aside(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "step-abc").mkdir()
    (tmp_path / "last").unlink()
    (tmp_path / "last").mkdir()
    messages: list[str] = []
    found = checkpoint.newest(tmp_path, messages.append)
    assert found is not None and os.readlink(tmp_path / "last") == "step-1"
    assert len(messages) == 2 and all("is not a checkpoint; it is renamed to damaged-1-" in message for message in messages)
