import pytest
from helpers import missing_extra

from envs import listing
from envs.__main__ import main


@pytest.mark.parametrize(
    "match, player, expert",
    [("GoToDoor-5x5", "engine", "1.00"), ("Dynamic-Obstacles-5x5", "MiniGrid", "-"), ("Playground", "engine", "-")],
)
def test_a_line_for_each_id(match, player, expert):
    (row,) = listing.rows(match, episodes=3)
    line = row.line()
    name, played_by, success, *_ = (cell.strip() for cell in line.strip("|").split("|"))
    assert match in name and (played_by, success) == (player, expert)
    assert line.count("|") == listing.header(3)[-1].count("|")


def test_the_table_goes_between_its_markers():
    other = f"{listing.begin('Meta-World')}\nothers\n{listing.END}"
    text = f"above\n{listing.begin(listing.USUAL)}\nold\n{listing.END}\nbelow\n{other}\n"
    new = listing.inserted(text, listing.USUAL, ["| new |"])
    assert "old" not in new and new.startswith("above\n") and new.endswith(f"\nbelow\n{other}\n") and "| new |" in new
    assert listing.inserted(new, listing.USUAL, ["| new |"]) == new
    assert "others" not in listing.inserted(new, "Meta-World", ["| new |"])
    with pytest.raises(SystemExit, match="must contain"):
        listing.inserted("no markers", listing.USUAL, [])


def test_an_id_that_does_not_exist_is_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("sys.argv", ["envs", "list", "--match", "Nothing"])
    assert main() == 2
    assert capsys.readouterr() == ("", "no id of MiniGrid, BabyAI or Meta-World contains Nothing\n")


def test_all_ids_are_summed_up():
    *_, told = listing.total(list(listing.rows("GoToDoor-8", episodes=2)))
    assert told.startswith("1 id; experts for 1, which solve 1.000 on average; ") and told.endswith(" steps/s of CPU time.")
    assert listing.total([])[-1] == "0 ids."


def test_a_line_for_a_task_of_meta_world():
    if sentence := missing_extra("metaworld"):
        pytest.skip(sentence)
    (row,) = listing.rows("Meta-World/drawer-close", episodes=1)
    assert row.line().startswith("| Meta-World/drawer-close-v3 | Meta-World | 1.00 |")
