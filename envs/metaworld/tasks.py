"""Meta-World's fifty tasks: their names, how difficult they are, and the two benchmarks that are made of them."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

# The classes of Seo et al. 2022 (Masked World Models, arXiv 2206.14244), by which later papers report success.
_EASY = (
    "button-press button-press-topdown button-press-topdown-wall button-press-wall coffee-button dial-turn door-close door-lock "
    "door-open door-unlock drawer-close drawer-open faucet-close faucet-open handle-press handle-press-side handle-pull "
    "handle-pull-side lever-pull peg-unplug-side plate-slide plate-slide-back plate-slide-back-side plate-slide-side reach "
    "reach-wall window-close window-open"
)
_MEDIUM = "basketball bin-picking box-close coffee-pull coffee-push hammer peg-insert-side push-wall soccer sweep sweep-into"
_HARD = "assembly hand-insert pick-out-of-hole pick-place push push-back"
_VERY_HARD = "disassemble pick-place-wall shelf-place stick-pull stick-push"
_MT10 = "reach push pick-place door-open drawer-open drawer-close button-press-topdown peg-insert-side window-open window-close"


def _names(words: str) -> list[str]:
    return [f"{word}-v3" for word in words.split()]


DIFFICULTY = {"easy": _names(_EASY), "medium": _names(_MEDIUM), "hard": _names(_HARD), "very hard": _names(_VERY_HARD)}
CLASS_OF = {name: difficulty for difficulty, names in DIFFICULTY.items() for name in names}
NAMES = sorted(CLASS_OF)
BENCHMARKS = {"mt10": _names(_MT10), "mt50": NAMES}


def listed(tasks: str | Sequence[str]) -> list[str]:
    """The names that `env.tasks` stands for. ValueError if one is unknown."""
    names = BENCHMARKS.get(tasks, [tasks]) if isinstance(tasks, str) else list(tasks)
    if not names:
        raise ValueError("tasks must name a task, mt10 or mt50, got an empty list")
    for name in names:
        if name in BENCHMARKS:
            raise ValueError(f"tasks=[{name}, ...] mixes a benchmark with tasks; write tasks={name}, or a list of task names")
        if name not in CLASS_OF:
            near = get_close_matches(name, NAMES, 3, 0.4)
            hint = (
                f"did you mean {' or '.join(near)}?" if near else f"the tasks are {', '.join(NAMES)}; mt10 and mt50 are several"
            )
            raise ValueError(f"tasks names {name}, which is not a task of Meta-World; {hint}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"tasks names {twice[0]} twice")
    return list(names)
