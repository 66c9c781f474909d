"""`python -m sweeps COMMAND FOLDER`: look after a sweep that `launch.py -m` has started."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from conf import sentences
from conf.errors import Exit
from sweeps import report

FORMS = {
    "markdown": "print it as Markdown",
    "csv": "print it as CSV, numbers not rounded",
    "json": "print all that is known as JSON",
    "html": "write FOLDER/report.html alone: one page with learning curves",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sweeps", description="Look after a sweep that launch.py has started.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    table = commands.add_parser("report", help="the scores of every setting, pooled over its seeds", description=report.__doc__)
    table.add_argument("folder", type=Path, metavar="FOLDER", help="the sweep's folder, finished or not: runs/NAME/TIME")
    form = table.add_mutually_exclusive_group()
    for name in FORMS:
        form.add_argument(f"--{name}", action="store_const", const=name, dest="form", help=FORMS[name])
    asked = parser.parse_args()
    try:
        report.show(asked.folder, asked.form or "table")
    except Exception as error:
        return sentences.report(error)
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
