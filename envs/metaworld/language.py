"""An instruction for every task, in several wordings. About a third of them occur in the test split alone."""

from __future__ import annotations

import re
from functools import cache
from itertools import product

import numpy as np

from envs.base import SPLITS
from envs.text import tokens

WORDS = 14  # of the longest instruction, with room for two more
# {a|b} is a choice; every combination is a wording.
SENTENCES = {
    "assembly-v3": "{put|place|fit} the {nut|ring} {on|onto} the peg",
    "basketball-v3": "{throw|drop} the {basketball|orange ball} {into|through} the {basket|hoop}",
    "bin-picking-v3": "{move|bring} the {cube|block} from one bin {to|into} the other",
    "box-close-v3": "{close|shut} the box {with|using} {its|the} lid",
    "button-press-topdown-v3": "{press|push} the {button|red button} {down|from above}",
    "button-press-topdown-wall-v3": "{press|push} the {button|red button} {down|from above} over the wall",
    "button-press-v3": "{press|push} the {button|red button} {forward|from the front}",
    "button-press-wall-v3": "{press|push} the {button|red button} {forward|from the front} over the wall",
    "coffee-button-v3": "{press|push} the {button|switch} {of|on} the coffee machine",
    "coffee-pull-v3": "{pull|drag} the {mug|cup} {away|back} from the coffee machine",
    "coffee-push-v3": "{push|slide} the {mug|cup} {to|under} the coffee machine",
    "dial-turn-v3": "{turn|rotate|twist} the {dial|knob}",
    "disassemble-v3": "{take|lift} the {nut|ring} {off|up off} the peg",
    "door-close-v3": "{close|shut} the {door|door of the safe} {again|now}",
    "door-lock-v3": "lock the {door|safe} {by turning|with} the {lock|bolt}",
    "door-open-v3": "{open|pull open} the {door|door of the safe} {wide|now}",
    "door-unlock-v3": "unlock the {door|safe} {by turning|with} the {lock|bolt}",
    "drawer-close-v3": "{close|shut|push in} the {drawer|green drawer}",
    "drawer-open-v3": "{open|pull open|pull out} the {drawer|green drawer}",
    "faucet-close-v3": "{close|turn off|shut} the {faucet|tap}",
    "faucet-open-v3": "{open|turn on|run} the {faucet|tap}",
    "hammer-v3": "{hammer|drive|hit} the nail {in|into the wall}",
    "hand-insert-v3": "{put|insert} the {hand|gripper} {in|into} the hole",
    "handle-press-side-v3": "{press|push} the {handle|bar} down {sideways|from the side}",
    "handle-press-v3": "{press|push} the {handle|bar} down {in front|straight}",
    "handle-pull-side-v3": "{pull|lift} the {handle|bar} up {sideways|from the side}",
    "handle-pull-v3": "{pull|lift} the {handle|bar} up {in front|straight}",
    "lever-pull-v3": "{pull|lift|raise} the lever {up|upwards}",
    "peg-insert-side-v3": "{insert|push|fit} the peg {in|into} the hole {sideways|from the side}",
    "peg-unplug-side-v3": "{unplug|remove} the {peg|plug} {sideways|from the side}",
    "pick-out-of-hole-v3": "{take|pick} the {puck|disc} out of {the|its} hole",
    "pick-place-v3": "{pick up|grasp} the {puck|cylinder} and {place|hold} it at the {goal|target}",
    "pick-place-wall-v3": "{pick up|grasp} the {puck|cylinder} and {place|hold} it at the {goal|target} over the wall",
    "plate-slide-back-side-v3": "{slide|move} the {plate|disc} {out of|from} the {goal|net} {sideways|to the side}",
    "plate-slide-back-v3": "{slide|move} the {plate|disc} {out of|from} the {goal|net} back to you",
    "plate-slide-side-v3": "{slide|move} the {plate|disc} {in|into} the {goal|net} {sideways|from the side}",
    "plate-slide-v3": "{slide|move} the {plate|disc} {in|into} the {goal|net} in front",
    "push-back-v3": "{push|drag} the {puck|cylinder} back to the {goal|target} near you",
    "push-v3": "{push|slide} the {puck|cylinder} to the {goal|target}",
    "push-wall-v3": "{push|slide} the {puck|cylinder} around the wall to the {goal|target}",
    "reach-v3": "{reach|go to|touch} the {goal|target} with {the|your} hand",
    "reach-wall-v3": "{reach|go to|touch} the {goal|target} behind the wall with {the|your} hand",
    "shelf-place-v3": "{put|place} the {puck|block} {on|onto} the shelf",
    "soccer-v3": "{kick|push} the {ball|soccer ball} {in|into} the {goal|net}",
    "stick-pull-v3": "{take|grasp} the stick and {pull|drag} the {box|thermos} with it",
    "stick-push-v3": "{take|grasp} the stick and {push|move} the {box|thermos} with it",
    "sweep-into-v3": "sweep the {puck|block} {in|into} {the|its} hole",
    "sweep-v3": "sweep the {puck|block} {off|over the edge of} the table",
    "window-close-v3": "{close|shut|slide shut} the {window|glass}",
    "window-open-v3": "{open|slide open|push open} the {window|glass}",
}


@cache
def wordings(task: str) -> tuple[list[str], list[str]]:
    """The wordings of training and validation, and those of the test split: other combinations of the same choices."""
    parts = [part.split("|") for part in re.split(r"[{}]", SENTENCES[task])]
    seen: list[str] = []
    held_out: list[str] = []
    for chosen in product(*(range(len(part)) for part in parts)):
        text = " ".join(" ".join(part[index] for part, index in zip(parts, chosen, strict=True)).split())
        (held_out if sum(chosen) % 3 == 2 else seen).append(text)
    return seen, held_out


def instruction(task: str, seed: int, random: np.random.Generator) -> np.ndarray:
    """Word tokens [WORDS] that ask for the task, in one of the wordings of the seed's split."""
    choices = wordings(task)[seed >= SPLITS["test"][0]]
    return tokens(choices[int(random.integers(len(choices)))], WORDS)
