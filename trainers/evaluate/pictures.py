"""Pictures of an evaluation: a film of episodes; for policies that plan in rounds, how a plan was made; curves."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

GAP, LABEL = 6, 120  # pixels between the episodes of a film, and the least width that their labels need
STEP, ROUND, LAST = 150, 700, 4000  # milliseconds: a step of an episode, a round of unmasking, its end
STATE, ROW, MARGIN = 234, 26, 16  # pixels: the side of a state's picture, the height of a table's row, around everything
ROUNDS, SLOTS = 10, 64  # the most rounds drawn of each plan, and the most slots drawn in all plans together
FONT = ImageFont.load_default(14)
INK, FAINT = "#222222", "#999999"
LINES = ("#0077bb", "#ee7733", "#009988", "#cc3311", "#ee3377", "#555555")  # Paul Tol's vibrant scheme
MASK, HATCH, NEW = "#ececec", "#d2d2d2", "#cc3311"
# Paul Tol's light scheme: backgrounds for black text that colour-blind people can tell apart. They repeat for more actions.
COLOURS = ("#77aadd", "#ee8866", "#44bb99", "#eedd88", "#ffaabb", "#bbcc33", "#99ddff", "#aaaa00")


@dataclass
class Picture:
    """An encoded GIF or PNG: `file` in the run folder's media/, `title` in TensorBoard."""

    file: str
    title: str
    encoded: bytes
    shape: tuple[int, int]  # height, width

    def save(self, folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        (folder / self.file).write_bytes(self.encoded)
        return folder / self.file


def film(episodes: list[np.ndarray], labels: Sequence[Sequence[str]]) -> Picture:
    """Several episodes' frames [T,H,W,3] side by side, each above its label. Shorter episodes keep showing their last frame."""
    labelled = [
        np.stack([_labelled(frame, label) for frame, label in zip(frames, below, strict=True)])
        for frames, below in zip(episodes, labels, strict=True)
    ]
    longest = max(len(frames) for frames in labelled)
    held = [np.concatenate([frames, np.repeat(frames[-1:], longest - len(frames), axis=0)]) for frames in labelled]
    gap = ((0, 0), (0, 0), (0, GAP), (0, 0))
    frames = np.concatenate([np.pad(frames, gap, constant_values=255) for frames in held], axis=2)
    return Picture("episodes.gif", "episodes", encode_gif(map(Image.fromarray, frames), STEP), frames.shape[1:3])


def labels_of(actions: np.ndarray, names: Sequence[str], begin: str, end: str) -> list[str]:
    """The labels of an episode's frames: `begin`, then each step with its action's name, if it has one, and `end` at the end."""
    steps = [f"{step}  {names[int(action)] if names else ''}".rstrip() for step, action in enumerate(actions[:-1], start=1)]
    return [begin, *steps, end] if len(actions) else [end]


def _labelled(frame: np.ndarray, label: str) -> np.ndarray:
    """The frame [H,W,3] above a line of text; a narrow frame is widened to make room for it."""
    height, width = frame.shape[:2]
    sheet = Image.new("RGB", (max(width, LABEL), height + ROW), "white")
    sheet.paste(Image.fromarray(frame), ((sheet.width - width) // 2, 0))
    ImageDraw.Draw(sheet).text((sheet.width / 2, height + ROW / 2), label, INK, FONT, "mm")
    return np.asarray(sheet)


def unmasking(states: Sequence[np.ndarray], rounds: np.ndarray, names: list[str]) -> list[Picture]:
    """Draw the plans made in `states` [H,W,3] as they were after each round: `rounds` [K+1, N, slots].

    Tokens are the actions called `names`, then END, PAD and MASK. Each round is a row, so the order is visible at a glance. The
    GIF adds the rows one by one; the PNG is its last frame. Of many rounds, evenly spaced ones are drawn; of long plans, fewer.
    """
    numbers = np.linspace(0, len(rounds) - 1, min(len(rounds), ROUNDS)).round().astype(int)
    slots = rounds.shape[2]
    states = states[: max(1, SLOTS // slots)]
    rounds = rounds[numbers, : len(states), :SLOTS]
    looks = [(name, COLOURS[action % len(COLOURS)], INK) for action, name in enumerate(names)]
    looks += [("END", INK, "white"), ("PAD", "#f8f8f8", FAINT), ("", MASK, INK)]
    width = round(max(FONT.getlength(name) for name, _, _ in looks)) + 16
    left = MARGIN + STATE + MARGIN + round(FONT.getlength(f"round {numbers[-1]}")) + 10  # of the first slot
    legend = {"masked": MASK, "new in this row": "white"}
    legend_width = {text: width + round(FONT.getlength(text)) + 26 for text in legend}
    top = MARGIN + ROW + MARGIN // 2  # of the first state, below the legend
    height = ROW + max(STATE, ROW * len(rounds)) + MARGIN
    table = max(rounds.shape[2] * width, sum(legend_width.values()))
    sheet = Image.new("RGB", (left + table + MARGIN, top + len(states) * height), "white")
    draw = ImageDraw.Draw(sheet)

    def write(x: float, y: float, text: str, colour: str = FAINT, anchor: str = "mm") -> None:
        draw.text((x, y + ROW / 2), text, colour, FONT, anchor)

    begun = "" if slots <= SLOTS else f" (its first {SLOTS} of {slots} slots)"
    write(MARGIN, MARGIN, f"the plan made at the start of an episode{begun}", INK, "lm")
    x = left
    for text, ground in legend.items():
        sheet.paste(cell("", ground, INK, width, new=ground != MASK), (x, MARGIN))
        write(x + width + 6, MARGIN, text, INK, "lm")
        x += legend_width[text]
    for index, state in enumerate(states):
        sheet.paste(ImageOps.contain(Image.fromarray(state), (STATE, STATE)), (MARGIN, top + index * height + ROW))
        write(left - 10, top + index * height, "slot", anchor="rm")
        for slot in range(rounds.shape[2]):
            write(left + (slot + 0.5) * width, top + index * height, str(slot + 1))

    for row, plans in enumerate(rounds):
        for index, plan in enumerate(plans):
            y = top + index * height + ROW * (1 + row)
            write(left - 10, y, f"round {numbers[row]}" if row else "start", anchor="rm")
            for slot, token in enumerate(plan):
                new = row > 0 and token != rounds[row - 1, index, slot]
                sheet.paste(cell(*looks[int(token)], width, new), (left + slot * width, y))
    strip = io.BytesIO()
    sheet.save(strip, format="png")
    last = sheet.quantize(dither=Image.Dither.NONE)  # one palette for all frames: one byte per pixel, and colours do not flicker
    white = int(np.asarray(last)[0, 0])  # white's index in the palette

    def frames() -> Iterator[Image.Image]:
        """The sheet with its later rows hidden, then with one more row in each frame."""
        for shown in range(1, len(rounds)):
            frame = last.copy()
            for index in range(len(states)):
                y = top + index * height + ROW
                hidden = (MARGIN + STATE + 1, y + ROW * shown, sheet.width, y + ROW * len(rounds))
                frame.paste(white, hidden)
            yield frame
        yield last

    gif = encode_gif(frames(), [ROUND] * (len(rounds) - 1) + [LAST])
    shape = (sheet.height, sheet.width)
    return [
        Picture("unmasking.gif", "unmasking", gif, shape),
        Picture("unmasking.png", "unmasking_strip", strip.getvalue(), shape),
    ]


@dataclass
class Curve:
    mean: list[float]
    low: list[float]
    high: list[float]


def curves(lines: dict[str, Curve], title: str) -> Picture:
    """Lines with bands for their intervals, over episodes counted from 1. A line with a single value is drawn to the end."""
    width, height, left, top, right, bottom = 760, 440, 60, 44, 150, 50  # pixels of the sheet, and of its margins
    episodes = max(2, *(len(line.mean) for line in lines.values()))
    values = [value for line in lines.values() for value in (*line.low, *line.high)]
    low, high = min(0.0, *values), max(*values, 1e-9)
    ticks = _ticks(low, high)

    def at(episode: float, value: float) -> tuple[float, float]:
        x = left + (episode - 1) / (episodes - 1) * (width - left - right)
        return x, height - bottom - (value - low) / (high - low) * (height - top - bottom)

    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet, "RGBA")
    draw.text((left, MARGIN), title, INK, FONT)
    for value in ticks:
        draw.line((*at(1, value), *at(episodes, value)), MASK)
        draw.text((left - 8, at(1, value)[1]), f"{value:g}", FAINT, FONT, "rm")
    for episode in sorted({1, *(round(tick) for tick in _ticks(0, episodes) if tick >= 1)}):
        draw.text((at(episode, low)[0], height - bottom + 14), str(episode), FAINT, FONT, "mm")
    draw.text((at((1 + episodes) / 2, low)[0], height - 16), "episode", FAINT, FONT, "mm")
    free = top * 1.0  # where the next name at the right can stand without overlapping
    for (name, line), colour in sorted(zip(lines.items(), LINES * len(lines), strict=False), key=lambda x: -x[0][1].mean[-1]):
        mean, below, above = ([*x] * (episodes if len(x) == 1 else 1) for x in (line.mean, line.low, line.high))
        numbers = range(1, len(mean) + 1)
        band = [at(e, v) for e, v in zip(numbers, above, strict=True)] + [at(e, v) for e, v in zip(numbers, below, strict=True)][
            ::-1
        ]
        if len(line.mean) > 1:
            draw.polygon(band, colour + "40")
        draw.line([at(e, v) for e, v in zip(numbers, mean, strict=True)], colour, 2 if len(line.mean) > 1 else 1)
        free = max(free, at(episodes, mean[-1])[1] - ROW / 3)
        draw.text((width - right + 14, free), f"{name} {mean[-1]:.1f}", colour, FONT)
        free += ROW * 0.75
    buffer = io.BytesIO()
    sheet.save(buffer, format="png")
    return Picture("return_by_episode.png", "return_by_episode", buffer.getvalue(), (height, width))


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers."""
    size = 10 ** np.floor(np.log10((high - low) / 5))
    step = next(s * size for s in (1, 2, 5, 10) if (high - low) / (s * size) <= 6)
    return [float(x) + 0.0 for x in np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step]  # + 0.0: no -0


def cell(text: str, ground: str, ink: str, width: int, new: bool) -> Image.Image:
    """Draw one slot of a plan: hatched if it is masked, outlined if it is new."""
    image = Image.new("RGB", (width, ROW), ground)
    draw = ImageDraw.Draw(image)
    if ground == MASK:
        for x in range(-ROW, width, 7):
            draw.line((x, ROW, x + ROW, 0), HATCH, 2)
    draw.text((width / 2, ROW / 2), text, ink, FONT, "mm")
    if new:
        draw.rectangle((0, 0, width - 1, ROW - 1), outline=NEW, width=4)
    draw.rectangle((0, 0, width - 1, ROW - 1), outline="white")  # a gap between cells
    return image


def encode_gif(frames: Iterable[Image.Image], milliseconds: int | list[int]) -> bytes:
    """Encode frames as a GIF. Each is fetched after the previous one was reduced to 256 colours, so few are in memory at once."""
    buffer, frames = io.BytesIO(), iter(frames)
    next(frames).save(buffer, format="gif", save_all=True, append_images=frames, duration=milliseconds, loop=0)
    return buffer.getvalue()
