"""The command `iolaus`: launch.py from any folder.

Our packages have common names (`envs`, `conf`), so the folder that holds them goes first on the path: what lies in the working
directory or on PYTHONPATH under such a name does not get in the way.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> int:
    sys.path.insert(0, str(Path(__file__).parent))
    from launch import launch

    return launch()
