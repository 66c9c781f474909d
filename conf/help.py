"""`--help`: the commands in help.txt, the options of every group, and a description of each experiment and study.

Imports the standard library alone: Hydra takes longer to import than everything here takes to run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from conf import terminal

ROOT = Path(__file__).parents[1]
DESCRIBED = ("experiment", "study")  # groups whose options are described one by one
ONE_LINE = 100


def asked(words: Sequence[str]) -> bool:
    return "--help" in words or "-h" in words


def show(words: Sequence[str]) -> None:
    try:
        print(text(words), flush=True)
    except BrokenPipeError:  # `| head`
        terminal.nobody_reads()


def text(words: Sequence[str]) -> str:
    """The help, for a command line with these words: `--config-dir` adds options."""
    folders = [ROOT / "conf", ROOT / "sweeps", *_added(words)]
    recipes = "\n".join(filter(None, (_recipes(folders, group) for group in DESCRIBED)))
    template = (ROOT / "conf" / "help.txt").read_text(encoding="utf-8")
    return template.replace("{choices}", _choices(folders)).replace("{recipes}", recipes).rstrip()


def _added(words: Sequence[str]) -> list[Path]:
    """The folders that the line adds to those of the configs."""
    flag, values = ("--config-dir", "-cd"), []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in flag:
            values.append(value if equals else following)
    return [Path(value) for value in values]


def _choices(folders: Sequence[Path]) -> str:
    """A line for each group whose options are not described one by one."""
    groups = {path.parent.name for folder in folders for path in folder.glob("*/*.yaml")}
    return "\n".join(f"{group}: {', '.join(_options(folders, group))}" for group in sorted(groups - {"hydra", *DESCRIBED}))


def _recipes(folders: Sequence[Path], group: str) -> str:
    """A line for each option of the group; "" if it has none."""
    options = _options(folders, group)
    width = max(map(len, options), default=0)
    lines = [f"  {name:{width}}  {_purpose(path)}".rstrip() for name, path in options.items()]
    return "\n".join([f"{group}=NAME:", *lines, ""]) if options else ""


def _options(folders: Sequence[Path], group: str) -> dict[str, Path]:
    """The options of a group, by name, with their files; the first folder that has one counts, as for Hydra."""
    found = {path.stem: path for folder in reversed(folders) for path in (folder / group).glob("*.yaml")}
    return dict(sorted(found.items()))


def _purpose(path: Path) -> str:
    """The first sentence of the file's header, after `# @package _global_`. A study's begins with "Question:"."""
    with open(path, encoding="utf-8", errors="replace") as file:
        comments = [line[1:].strip() for line in file if line.startswith("#") and "@package" not in line]
    sentence = re.split(r"(?<=[.?])\s", " ".join(comments[:2]).removeprefix("Question: "))[0].rstrip(".")
    return sentence if len(sentence) <= ONE_LINE else sentence[: ONE_LINE - 3].rstrip() + "..."
