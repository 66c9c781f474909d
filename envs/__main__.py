"""`python -m envs list` prints a Markdown table of all ids of MiniGrid, BabyAI and Meta-World."""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

from envs import listing


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m envs", description="List the environments.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    table = commands.add_parser("list", help="for every id: its simulator, the success of expert and random play, its speed")
    table.add_argument(
        "--match",
        default=listing.USUAL,
        help="only ids that contain this (default: %(default)s; others: BabyAI-, Meta-World; '': all)",
    )
    table.add_argument("--episodes", type=int, default=50, help="episodes of each player, on test layouts (default: %(default)s)")
    table.add_argument("--into", type=Path, metavar="FILE", help="write the table into this file, between its two markers")
    asked = parser.parse_args()
    rows = listing.rows(asked.match, asked.episodes)
    if (first := next(rows, None)) is None:
        print(f"no id of MiniGrid, BabyAI or Meta-World contains {asked.match}", file=sys.stderr)
        return 2
    lines = listing.header(asked.episodes)
    print("\n".join(lines), flush=True)
    measured = []
    for row in itertools.chain([first], rows):
        print(row.line(), flush=True)
        measured.append(row)
    after = listing.total(measured)
    print("\n".join(after))
    if asked.into:
        lines += [*(row.line() for row in measured), *after]
        asked.into.write_text(listing.inserted(asked.into.read_text(), asked.match, lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
