"""Makes the folder `sweeps/study` a config group, `study=NAME`, which tab completion knows."""

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class Studies(SearchPathPlugin):
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append("iolaus", f"file://{Path(__file__).resolve().parents[2] / 'sweeps'}")
