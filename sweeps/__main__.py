"""`python -m sweeps COMMAND [FOLDER]`: manage a sweep that `launch.py -m` has started."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # the working directory comes first, and may have a `conf` of its own
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from conf import sentences
from conf.errors import BadRequest, Exit

FORMS = {
    "markdown": "print it as Markdown",
    "csv": "print it as CSV, numbers not rounded",
    "json": "print all that is known as JSON",
    "html": "write FOLDER/report.html alone: one page with learning curves",
}


def main() -> int:
    asked, words = parser().parse_known_args()
    try:
        if words and asked.command != "resume":
            raise BadRequest(f"{' '.join(words)} means nothing here; see python -m sweeps --help")
        return run(asked, words)
    except Exception as error:
        return sentences.report(error)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m sweeps", description="Look after a sweep that launch.py has started.")
    commands = made.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="command")

    def command(name: str, words: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=words, description=words)
        added.add_argument(
            "folder", type=Path, nargs="?", metavar="FOLDER", help="runs/STUDY or runs/NAME/TIME; the newest if left out"
        )
        return added

    command("status", "what every run is doing").add_argument("--follow", action="store_true", help="until all have ended")
    command("resume", "go on with what is not done; further words, as in cluster.jobs=1, go to launch.py")
    command("cancel", "stop the runs; those that go on save a checkpoint first")
    form = command("report", "the scores of every setting, pooled over its seeds").add_mutually_exclusive_group()
    for name in FORMS:
        form.add_argument(f"--{name}", action="store_const", const=name, dest="form", help=FORMS[name])
    return made


def run(asked: argparse.Namespace, words: list[str]) -> int:
    from sweeps import control

    if asked.command == "status":
        return control.status(asked.folder, asked.follow)
    if asked.command == "resume":
        return control.resume(asked.folder, words)
    if asked.command == "cancel":
        return control.cancel(asked.folder)
    from sweeps import report  # numpy comes with it

    report.show(asked.folder or control.sweep_folder(None), asked.form or "table")
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
