"""The charts that TensorBoard is asked to show use metrics that a run records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout


@pytest.mark.slow
def test_each_line_of_the_chart_is_recorded_by_some_policy(launch: Callable, here: Path):
    place = ("env.id=MiniGrid-Empty-5x5-v0", "env.data.episodes=200", "env.max_steps=10")  # its floors can be counted
    recorded: set[str] = set()
    for policy in ("masked_dit", "bc_mlp"):
        launch(f"policy={policy}", "debug=fdr", *place, f"hydra.run.dir={policy}")
        board = EventAccumulator(str(here / policy / "tensorboard")).Reload()
        recorded |= {*board.Tags()["scalars"]}
    layout = board.Tensors("custom_scalars__config__")[-1]  # each part of a run writes it again
    (chart,) = Layout.FromString(layout.tensor_proto.string_val[0]).category[0].chart
    assert {"val/first_action_loss", "val/action_floor"} <= {*chart.multiline.tag} <= recorded
