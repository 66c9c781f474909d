"""log.txt: opened without following links, since a run writes into its own folder alone."""

from __future__ import annotations

import logging
import os
from io import TextIOWrapper


class LogFile(logging.FileHandler):
    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, self.mode, encoding=self.encoding, errors=self.errors, opener=_no_link)  # type: ignore[return-value]


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)
