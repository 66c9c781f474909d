"""For `mode=collect`: a film of the first training episodes, played by the expert."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from envs.base import Family
from envs.play import ExpertPlayer, play
from trainers.evaluate.episodes import FILMED, names_of
from trainers.evaluate.pictures import film, labels_of


def film_expert(family: Family, episodes: int, folder: Path) -> Path | None:
    """Write the film to `folder`. None if there is no expert, the family does not render, or no episode is asked for."""
    if not episodes or family.accepts(family.config, needs="expert") is not None:
        return None
    seeds = family.seeds("train", episodes)
    kept = play(ExpertPlayer(family), family, seeds, episodes, keep=episodes).actions
    frames = family.render(seeds, [kept[index][:FILMED] for index in range(episodes)])
    if frames is None:
        return None
    names = names_of(family)
    labels = [labels_of(kept[index][:FILMED], names, "expert", f"{len(kept[index])} steps") for index in range(episodes)]
    return replace(film(frames, labels), file="expert.gif").save(folder / "media")
