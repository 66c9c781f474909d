"""Everything that README and docs/ refer to exists: files, headings, and the options in their commands."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
OPTION = re.compile(r"\b(policy|env|encoder|trainer|experiment|debug|cluster|logger)=([\w,]+)")
LARGEST = 300_000  # bytes of a picture: a page must not take seconds to show


def anchors(page: Path) -> set[str]:
    """Of the page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for target in LINK.findall(page.read_text()):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}, a heading that is not there"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_name_options_that_exist(page: Path):
    for group, names in OPTION.findall(page.read_text()):
        for name in filter(None, names.split(",")):
            known = name in ("mine", "NAME", "null") or (ROOT / "conf" / group / f"{name}.yaml").exists()
            assert known, f"{page.name} names {group}={name}, and conf/{group} has no such file"


RECIPES = sorted([*(ROOT / "conf/experiment").glob("*.yaml"), *(ROOT / "sweeps/study").rglob("*.yaml")])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_headers_have_no_gaps_to_fill_in(path: Path):
    header = "\n".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    assert header and not re.findall(r"\b(?:RESULTS?|TODO)\b", header)


def test_pictures_are_small():
    pictures = [path for path in (ROOT / "docs").rglob("*") if path.suffix in (".png", ".gif", ".svg")]
    assert all(picture.stat().st_size < LARGEST for picture in pictures), [p.name for p in pictures]


def test_the_front_page_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 140
