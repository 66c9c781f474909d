import pytest
from helpers import missing_extra

from envs import listing


@pytest.mark.parametrize(
    "match, player, expert",
    [("GoToDoor-5x5", "engine", "1.00"), ("Dynamic-Obstacles-5x5", "MiniGrid", "-"), ("Playground", "engine", "-")],
)
def test_a_line_for_each_id(match, player, expert):
    (line,) = listing.rows(match, episodes=3)
    name, played_by, success, *_ = (cell.strip() for cell in line.strip("|").split("|"))
    assert match in name and (played_by, success) == (player, expert)
    assert line.count("|") == listing.header(3)[-1].count("|")


def test_the_table_goes_between_its_markers():
    text = f"above\n{listing.BEGIN}\nold\n{listing.END}\nbelow\n"
    new = listing.inserted(text, ["| new |"])
    assert "old" not in new and new.startswith("above\n") and new.endswith("\nbelow\n") and "| new |" in new
    assert listing.inserted(new, ["| new |"]) == new
    with pytest.raises(SystemExit, match="must contain"):
        listing.inserted("no markers", [])


def test_a_line_for_a_task_of_meta_world():
    if sentence := missing_extra("metaworld"):
        pytest.skip(sentence)
    (line,) = listing.rows("Meta-World/drawer-close", episodes=1)
    assert line.startswith("| Meta-World/drawer-close-v3 | Meta-World | 1.00 |")
