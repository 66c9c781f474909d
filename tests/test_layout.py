"""The layout rules: which packages may import which, and the length of files. Imports inside functions count too."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator

import pytest
from helpers import ROOT

PACKAGES = ("conf", "envs", "policies", "trainers", "sweeps", "hydra_plugins")
FILES = {
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
MOST_LINES = 300
LAYERS = {
    "envs": {"policies", "trainers", "sweeps"},
    "policies": {"trainers", "sweeps"},
    "trainers": {"sweeps"},
}


def imports(module: str, everywhere: bool = True) -> Iterator[str]:
    """The files that a file imports; with `everywhere`, also inside its functions. What only type checkers see does not count."""
    tree = ast.parse(FILES[module].read_text())
    nodes: list[ast.AST] = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if not everywhere and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{module} has a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if (found := whole if whole in FILES else node.module) in FILES:
                    yield found


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A cycle of the graph, or nothing."""
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for other in sorted(graph[module]):
            if found := walk(other, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in graph if (found := walk(module, []))), [])


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert not circle({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def test_no_file_imports_itself_through_others():
    assert circle({module: set(imports(module)) for module in FILES}) == []


@pytest.mark.parametrize("package", LAYERS)
def test_a_layer_imports_nothing_from_above(package: str):
    above = {
        (module, other)
        for module in FILES
        if module.split(".")[0] == package
        for other in imports(module)
        if other.split(".")[0] in LAYERS[package]
    }
    assert not above


def test_conf_is_read_before_anything_else_is_imported():
    """Its functions import what a request names. Its modules import none of it, so that a typo is found quickly."""
    below = {(module, other) for module in FILES if module.split(".")[0] == "conf" for other in imports(module, everywhere=False)}
    assert not {(module, other) for module, other in below if other.split(".")[0] != "conf"}


def test_no_file_is_longer_than_one_sitting():
    listed = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    files = [ROOT / name for name in listed if not name.startswith("tests/")]
    assert len(files) > 50
    long = {path.name: lines for path in files if (lines := len(path.read_text().splitlines())) > MOST_LINES}
    assert not long, long
