"""Dashboards for a running training, besides its metrics.jsonl: TensorBoard, and Weights & Biases."""

from __future__ import annotations

import importlib.util
import io
import secrets
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from conf.errors import BadRequest

LONGEST_NAME, LONGEST_TAG = 128, 64  # characters that W&B takes


@dataclass
class Config:
    """`logger.*`"""

    name: Literal["tensorboard", "wandb", "both", "none"] = "tensorboard"  # metrics.jsonl is always written
    project: str = "iolaus"  # this and the following are for W&B
    entity: str | None = None  # the team or user that owns the project; null: the default of the user who is logged in
    mode: Literal["online", "offline"] = "online"  # offline: upload later with `wandb sync`

    @property
    def uses_wandb(self) -> bool:
        return self.name in ("wandb", "both")

    @property
    def uses_tensorboard(self) -> bool:
        return self.name in ("tensorboard", "both")

    def __post_init__(self) -> None:
        if not self.uses_wandb:
            return
        package = importlib.util.find_spec("wandb")
        if package is None or package.origin is None:  # without an origin, it is only a folder with that name
            raise ValueError(f"name is {self.name}, which needs an extra package: pip install -e '.[wandb]'")
        if not 1 <= len(self.project) <= LONGEST_NAME or set(self.project) & set("/\\#?%:"):
            raise ValueError(
                f"project must be 1 to {LONGEST_NAME} characters, none of them one of / \\ # ? % :, got {self.project}"
            )

    def refuse_unready(self, tags: Sequence[str]) -> None:
        """Check what W&B would refuse only after the run has a folder. Without a key it would even prompt for one, and wait."""
        if not self.uses_wandb:
            return
        for tag in tags:
            if not 1 <= len(tag) <= LONGEST_TAG:
                raise BadRequest(f"a tag for W&B has 1 to {LONGEST_TAG} characters, got tags=[{tag}] with {len(tag)}")
        if self.mode == "offline":
            return
        wandb = _quiet_wandb(self)
        try:
            known = wandb.login(prompt=False, verify=False)
        except wandb.Error as error:
            raise BadRequest(f"W&B cannot use the key it found: {error}") from error
        if not known:
            raise BadRequest(
                f"logger={self.name} has no W&B key here: run `wandb login`, set WANDB_API_KEY, or add logger.mode=offline"
            )


class Board:
    """The interface of a board. This one shows nothing."""

    def scalars(self, step: int, values: dict[str, float]) -> None: ...

    def text(self, name: str, markdown: str) -> None: ...

    def hyperparameters(self, values: dict[str, Any], scores: dict[str, float], step: int) -> None:
        """The run's final scores and its configuration: one row in a table of runs."""

    def media(self, name: str, encoded: bytes, shape: tuple[int, int], step: int) -> None:
        """An encoded GIF or PNG."""

    def flush(self) -> None: ...

    def close(self) -> None: ...


class TensorBoard(Board):
    def __init__(self, folder: Path, purge_step: int | None):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=purge_step)
        lines = ["train/loss", "val/loss", "val/first_action_loss", "train/floor", "val/action_floor", "train/chance"]
        self.writer.add_custom_scalars({"loss": {"loss, beside floor and chance": ["Multiline", lines]}})

    def scalars(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def text(self, name: str, markdown: str) -> None:
        self.writer.add_text(name, markdown, 0)

    def hyperparameters(self, values: dict[str, Any], scores: dict[str, float], step: int) -> None:
        from torch.utils.tensorboard.summary import hparams

        plain = {name: value if isinstance(value, (bool, int, float, str)) else str(value) for name, value in values.items()}
        for summary in hparams(plain, scores):
            self.writer._get_file_writer().add_summary(summary)
        self.scalars(step, scores)

    def media(self, name: str, encoded: bytes, shape: tuple[int, int], step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        height, width = shape  # the image tab plays a GIF
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded)
        self.writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class Wandb(Board):
    """Writes to the W&B run that `session` keeps open.

    W&B's own step can only grow, but a resumed run goes back to its checkpoint. So our step is logged as a value, and is the
    x-axis of all others. Rows that a killed process had already sent are sent again, with the same values at the same step.
    """

    def __init__(self) -> None:
        import wandb

        assert wandb.run, "there is no session"
        self.run = wandb.run
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self.run.log({**values, "step": step})

    def text(self, name: str, markdown: str) -> None:
        self.run.summary[name] = markdown

    def hyperparameters(self, values: dict[str, Any], scores: dict[str, float], step: int) -> None:
        self.run.summary.update(scores)  # `session` has already sent the configuration

    def media(self, name: str, encoded: bytes, shape: tuple[int, int], step: int) -> None:
        import wandb
        from PIL import Image

        file = io.BytesIO(encoded)
        gif = encoded.startswith(b"GIF")  # W&B does not animate images
        self.run.log({name: wandb.Video(file, format="gif") if gif else wandb.Image(Image.open(file)), "step": step})


class Boards(Board):
    """Several boards (`logger=both`), or none (`logger=none`)."""

    def __init__(self, boards: Sequence[Board]):
        self.boards = boards

    def scalars(self, step: int, values: dict[str, float]) -> None:
        for board in self.boards:
            board.scalars(step, values)

    def text(self, name: str, markdown: str) -> None:
        for board in self.boards:
            board.text(name, markdown)

    def hyperparameters(self, values: dict[str, Any], scores: dict[str, float], step: int) -> None:
        for board in self.boards:
            board.hyperparameters(values, scores, step)

    def media(self, name: str, encoded: bytes, shape: tuple[int, int], step: int) -> None:
        for board in self.boards:
            board.media(name, encoded, shape, step)

    def flush(self) -> None:
        for board in self.boards:
            board.flush()

    def close(self) -> None:
        for board in self.boards:
            board.close()


def opened(config: Config, folder: Path, purge_step: int | None) -> Board:
    """`purge_step`: rows from this step on, which a killed process wrote, will be written again."""
    shown: list[Board] = [TensorBoard(folder, purge_step)] if config.uses_tensorboard else []
    if config.uses_wandb:
        shown.append(Wandb())
    return shown[0] if len(shown) == 1 else Boards(shown)


@contextmanager
def session(config: Config, folder: Path, values: dict[str, Any], say: Callable[[str], None]) -> Iterator[None]:
    """With `logger=wandb` or `both`, keep one W&B run open for the whole run. `values` are its configuration."""
    if not config.uses_wandb or values["mode"] == "collect":  # collect logs nothing
        yield
        return
    config.refuse_unready(values["tags"])  # again: a sweep may have sent the run to another machine
    wandb = _quiet_wandb(config)
    here = folder / "wandb"
    here.mkdir(exist_ok=True)
    name = here / "id.txt"  # a resumed run continues the W&B run with this id
    if not name.exists():
        name.write_text(secrets.token_hex(4))
    offline = config.mode == "offline"
    try:
        run = wandb.init(
            mode=config.mode,
            project=config.project,
            entity=config.entity,
            dir=folder,
            id=name.read_text(),
            resume="allow",
            name=folder.name[:LONGEST_NAME],
            group=values["name"][:LONGEST_NAME],
            tags=values["tags"],
            config=values,
            # Our output is in log.txt. Offline W&B has nothing to report; online it should report a lost server.
            settings=wandb.Settings(console="off", quiet=True, silent=offline),
        )
    except (wandb.Error, ValueError) as error:  # ValueError: from settings in files and environment variables
        raise BadRequest(f"W&B refused the run: {error}; mend that, or add logger.mode=offline") from error
    with run:
        try:
            yield
        finally:
            say(f"W&B          {f'wandb sync {shlex.quote(str(here))}/offline-run-*' if offline else run.url}")


def _quiet_wandb(config: Config) -> Any:
    """The package, set up for the whole process. Without this it prints a greeting, and sends telemetry even for offline runs."""
    import wandb

    wandb.setup(wandb.Settings(mode=config.mode, silent=True))
    return wandb
