"""What `--help` lists: the options of every group, with a description of each experiment and study.

The description is the first comment of the file after `# @package _global_`. OmegaConf resolvers, called in
conf/hydra/help/iolaus.yaml, read it without composing anything.
"""

from __future__ import annotations

import re
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

DESCRIBED = ("experiment", "study")  # groups whose options are described one by one
ONE_LINE = 100


def register() -> None:
    OmegaConf.register_new_resolver("choices", choices, replace=True)
    OmegaConf.register_new_resolver("recipes", recipes, replace=True)


def choices() -> str:
    """A line for each group whose options are not described one by one."""
    loader = GlobalHydra.instance().config_loader()
    groups = [group for group in loader.list_groups("") if group not in ("hydra", *DESCRIBED)]
    return "\n".join(f"{group}: {', '.join(loader.get_group_options(group))}" for group in sorted(groups))


def recipes(group: str) -> str:
    """A line for each option of the group; "" if it has none."""
    loader = GlobalHydra.instance().config_loader()
    names = loader.get_group_options(group)
    width = max(map(len, names), default=0)
    folders = [Path(source.path) for source in loader.get_sources() if source.scheme() == "file"]
    lines = [f"  {name:{width}}  {_purpose(folders, group, name)}".rstrip() for name in names]
    return "\n".join([f"{group}=NAME:", *lines, ""]).replace("$", "$$") if names else ""


def _purpose(folders: list[Path], group: str, name: str) -> str:
    for folder in folders:
        path = folder / group / f"{name}.yaml"
        if path.is_file():
            with open(path, encoding="utf-8", errors="replace") as file:
                comments = [line[1:].strip() for line in file if line.startswith("#") and "@package" not in line]
            sentence = re.split(r"(?<=[.?])\s", " ".join(comments[:2]))[0].rstrip(".")
            return sentence if len(sentence) <= ONE_LINE else sentence[: ONE_LINE - 3].rstrip() + "..."
    return ""
