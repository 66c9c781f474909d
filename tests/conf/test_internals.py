"""What this project changes in Hydra must not change what Hydra composes."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import CONF
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from conf import internals
from conf.internals import Application, CheckedLoader


@pytest.mark.parametrize("words", [["policy=bc_mlp", "seed=3"], ["experiment=bc_doorkey"], ["debug=fdr", "hydra.verbose=true"]])
def test_what_is_composed_for_the_mode_serves_a_single_run(words: list[str]):
    GlobalHydra.instance().clear()
    application = Application("launch", CheckedLoader(create_config_search_path(str(CONF))))
    assert application.get_mode("config", words) is None
    single = [*words, "hydra.mode=RUN"]  # as Hydra goes on
    kept = application.config_loader.load_configuration("config", single, RunMode.RUN)
    fresh = application.config_loader.load_configuration("config", single, RunMode.RUN)
    assert kept is not fresh and OmegaConf.to_yaml(kept) == OmegaConf.to_yaml(fresh)
    GlobalHydra.instance().clear()


def test_a_process_with_several_runs_finds_the_configs_of_config_dir(tmp_path: Path):
    (tmp_path / "env").mkdir()
    (tmp_path / "env/mine.yaml").write_text("defaults: [minigrid, _self_]\nid: MiniGrid-Empty-5x5-v0\n")
    composed = internals.loader(None, str(tmp_path)).load_configuration("config", ["env=mine", "policy=bc_mlp"], RunMode.RUN)
    assert composed.env.id == "MiniGrid-Empty-5x5-v0" and composed.hydra.runtime.choices.env == "mine"
    GlobalHydra.instance().clear()
