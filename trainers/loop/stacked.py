"""One optimiser step of several runs at once, for about the price of one where a GPU waits for Python: `cluster.together`.

The runs' weights lie in one tensor [runs, weights]; each run's own tensors (weights, moments, average) become views of its row.
So validation, checkpoints and evaluation work as if the run were alone. Forward and backward are `torch.vmap` over the rows;
clipping and averaging work on all rows; each run has its own optimiser, learning rate and dropout.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from conf import memory
from conf.errors import BadRequest
from policies.base import Batch
from policies.noise import Noise, Purpose, finalised, fold, folded
from trainers.loop.batches import pinned, rows_of, to_device
from trainers.loop.capture import Captured, obstacle
from trainers.loop.optim import make_optimizer, precise
from trainers.loop.step import Step

WEIGHTS = 7  # numbers per weight: itself, its gradient (in pieces, then in a row), two moments, an average, room to compute
SLACK = 1.2  # times what a run is known to need
ALIGNED = 32  # numbers: every weight begins at such an offset, as the kernels of matrix products like it


class Stack:
    """Takes the steps of all `members`, which must be of one shape and have the same data. Checkpoints must be loaded before,
    because here the members' tensors become views."""

    def __init__(self, members: Sequence[Step]):
        first = members[0]
        self.members, self.source, self.device, self.config = members, first.source, first.device, first.config
        template = max(members, key=lambda member: len(member.dropouts))  # there may be none where the rate is 0
        self.policy = template.policy  # whose forward pass is that of all
        trained, saved = _trained(first)
        self.places, total = _laid_out({name: weight.shape for name, weight in trained.items()})
        runs, kind = len(members), precise(self.device)
        refuse_too_many(runs, WEIGHTS * 4 * total + saved, _free(self.device), str(self.device))
        self.weights, self.gradient, self.average, *self.moments = (
            torch.zeros(runs, total, device=self.device) for _ in range(3 + 2)
        )
        self.bad_in_row = torch.stack([member.bad_in_row for member in members])
        self.rates = torch.stack([member.optimizer.param_groups[0]["lr"] for member in members])
        self.steps, self.left_out = torch.zeros(runs, device=self.device), torch.zeros(runs, device=self.device)
        self.averaged = torch.zeros(runs, dtype=kind, device=self.device)  # how often
        clips = [member.config.grad_clip or torch.inf for member in members]
        self.clips = torch.tensor(clips, dtype=kind, device=self.device)
        self.seeds = torch.tensor([folded(member.noise_seed) for member in members], device=self.device)
        self.dropout_rates = {
            name: torch.tensor([_rate(member, name) for member in members], device=self.device) for name in template.dropouts
        }
        for name, module in template.dropouts.items():
            module.probability = float(self.dropout_rates[name].max())
        self.optimizers = [self._move(number, member) for number, member in enumerate(members)]
        self.leaves = {name: self._view(self.weights, name).detach().requires_grad_() for name in self.places}
        what = f"the training step of {runs} runs"
        self.captured = None if obstacle(self.config, self.device) else Captured(self.update, what, self.config.capture == "on")
        self.names: list[str] = []  # of the metrics
        self.rows: Tensor | None = None  # [most pending, runs, numbers]

    # --- where the tensors lie ---------------------------------------------------------------------------------------

    def _view(self, flat: Tensor, name: str) -> Tensor:
        """A weight [..., *shape] in rows [..., total]."""
        begin, shape = self.places[name]
        return flat[..., begin : begin + shape.numel()].unflatten(-1, shape)

    def _move(self, number: int, member: Step) -> torch.optim.Optimizer:
        """Makes a run's tensors views of its row; returns the optimiser of that row."""
        parameters = dict(member.policy.named_parameters())
        averages = dict(member.average.policy.named_parameters()) if member.average else {}
        for name in self.places:
            weight, state = parameters[name], member.optimizer.state[parameters[name]]
            for flat, value in ((self.weights, weight), (self.average, averages.get(name))):
                if value is not None:
                    view = self._view(flat[number], name)
                    view.copy_(value.detach())
                    value.data = view
            for flat, key in zip(self.moments, ("exp_avg", "exp_avg_sq"), strict=True):
                view = self._view(flat[number], name)
                if key in state:
                    view.copy_(state[key])
                state[key] = view
            if "step" in state:
                self.steps[number] = state["step"]
            state["step"] = self.steps[number]
        if member.average:
            self.averaged[number] = member.average.count
            member.average.count = self.averaged[number]
        member.bad_in_row = self.bad_in_row[number]
        row = nn.Parameter(self.weights[number])
        row.grad = self.gradient[number]
        optimizer = make_optimizer(member.config.optimizer, [row])
        optimizer.param_groups[0]["lr"] = self.rates[number]
        optimizer.found_inf = self.left_out[number]  # type: ignore[attr-defined]
        moments = {key: flat[number] for flat, key in zip(self.moments, ("exp_avg", "exp_avg_sq"), strict=True)}
        optimizer.state[row] = {"step": self.steps[number], **moments}
        return optimizer

    # --- on the host -------------------------------------------------------------------------------------------------

    def take(self, step: int, going: Sequence[bool]) -> None:
        """Step `step` of the runs that are `going`; the others stand still."""
        rates = [member.config.optimizer.lr * member.schedule.factor(step) for member in self.members]
        numbers = {
            "rate": torch.tensor(rates, dtype=self.rates.dtype),
            "going": torch.tensor(going),
            "number": torch.tensor(step),
            "dropout": torch.tensor([fold(member.seed, Purpose.DROPOUT, step) for member in self.members]),
        }
        samples = [member.source.batches.samples(0 if member.config.overfit else step) for member in self.members]
        inputs = {
            "numbers": pinned(numbers) if self.device.type == "cuda" else numbers,
            "data": self.source.inputs_of(samples),
        }
        row = self.captured.run(0, inputs) if self.captured else self.update(to_device(inputs, self.device))
        if self.rows is None:
            self.rows = torch.empty(self.members[0].most_pending, *row.shape, device=self.device)
        pending = max(len(member.rates) for member in self.members)  # the same in all that are going
        self.rows[pending].copy_(row)
        for number, member in enumerate(self.members):
            if going[number]:
                member.names, member.rows = self.names, self.rows[:, number]
                member.rates.append(rates[number])

    # --- on the device -----------------------------------------------------------------------------------------------

    def update(self, inputs: Batch, _: int = 0) -> Tensor:
        """The whole step; returns each run's row of numbers, as `Step.update` does for one."""
        numbers, config = inputs["numbers"], self.config
        runs, size = len(self.members), config.batch_size // config.accumulate
        batch = _unflattened(self.source.cut(inputs["data"]), runs)
        sums: dict[str, tuple[Tensor, Tensor]] = {}
        for start in range(0, config.batch_size, size):
            found, gradients = self.backward(batch, slice(start, start + size), numbers)
            if start == 0:
                torch.cat(gradients, dim=1, out=self.gradient)
            else:
                self.gradient += torch.cat(gradients, dim=1)
            for name, (value, count) in found.items():
                before = sums.get(name, (0.0, 0.0))
                sums[name] = (before[0] + value, before[1] + count)
        count = sums["loss"][1].clamp(min=1).to(self.clips.dtype)  # [runs], as all that follows
        length = torch.linalg.vector_norm(self.gradient, dim=1).to(count.dtype) / count
        finite = sums["loss"][0].isfinite() & length.isfinite()
        self.gradient *= ((self.clips / length).clamp(max=1) / count).float()[:, None]
        # As in `Step.update`; besides, a run that is not `going` stands still.
        goes_on = (self.bad_in_row < config.bad_steps) & numbers["going"]
        counts = finite & goes_on
        self.bad_in_row.copy_(torch.where(goes_on, torch.where(finite, 0, self.bad_in_row + 1), self.bad_in_row))
        self.left_out.copy_(~counts)
        self.rates.copy_(numbers["rate"])
        for optimizer in self.optimizers:
            optimizer.step()
        if config.ema:
            self.averaged += counts
            decay = ((1 + self.averaged) / (10 + self.averaged)).clamp(max=config.ema)
            self.average.lerp_(self.weights, ((1 - decay) * counts).float()[:, None])
        self.names = list(sums)
        return torch.stack([*(x.float() for pair in sums.values() for x in pair), finite.float(), length.float()], dim=1)

    def backward(
        self, batch: Batch, part: slice, numbers: dict[str, Tensor]
    ) -> tuple[dict[str, tuple[Tensor, Tensor]], list[Tensor]]:
        """Sums and counts [runs] of all metrics of a part of the batch, and the gradient of the summed loss as pieces of rows."""
        rows = torch.arange(part.start, part.stop, device=self.device)
        keys = finalised(numbers["dropout"] + rows[0])  # [runs], as in `Step.loss`
        others = {f"{name}.key": keys for name in [*self.dropout_rates][:1]}  # all dropouts of a policy share one tensor
        others |= {f"{name}.rate": rates for name, rates in self.dropout_rates.items()}

        def loss(weights: dict[str, Tensor], others: dict[str, Tensor], batch: Batch, seed: Tensor) -> Any:
            found = functional_call(self.policy, {**weights, **others}, (batch, Noise(seed, numbers["number"], rows)))
            return found.metrics | {"loss": (found.total, found.count)}

        batch = rows_of(batch, (slice(None), part))
        # PyTorch can stack the plain form of attention on every device.
        with (
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"),
            sdpa_kernel(SDPBackend.MATH),
        ):
            try:
                sums = vmap(loss)(self.leaves, others, batch, self.seeds)
            except RuntimeError as error:
                if "vmap" not in str(error).lower() and "batching rule" not in str(error).lower():
                    raise
                raise BadRequest(
                    f"{type(self.policy).__name__} cannot be trained together with others: PyTorch's vmap does not know an "
                    f"operation of it ({str(error).splitlines()[0]}). Leave out cluster.together"
                ) from error
        gradients = torch.autograd.grad(sums["loss"][0].sum(), list(self.leaves.values()))
        sums = {name: (value.detach(), count) for name, (value, count) in sums.items()}
        return sums, [piece for gradient in gradients for piece in _padded(gradient.flatten(1))]


def refuse_too_many(runs: int, bytes_of_one: float, free: float, where: str) -> None:
    fit = int(free / (SLACK * bytes_of_one))
    if fit < runs:
        raise BadRequest(
            f"{runs} runs together need {runs * SLACK * bytes_of_one / 1e9:.2g} GB of memory, and {where} has "
            f"{free / 1e9:.2g} GB "
            + (f"free, enough for {fit}: cluster.together={fit}" if fit > 1 else "free; leave out cluster.together")
        )


def _free(device: torch.device) -> float:
    """Free memory in bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    with suppress(OSError), open("/proc/meminfo") as file:
        return 1024 * next(float(line.split()[1]) for line in file if line.startswith("MemAvailable:"))
    return memory.physical()


def _trained(step: Step) -> tuple[dict[str, Tensor], int]:
    """The weights that the loss depends on, by name, and the bytes that a forward pass keeps for the backward pass. Takes one
    pass of each to find out."""
    saved: dict[int, int] = {}  # by address

    def keep(x: Tensor) -> Tensor:
        saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        step.backward(step.source.batch(0), 0)
    trained: dict[str, Tensor] = {name: weight for name, weight in step.policy.named_parameters() if weight.grad is not None}
    step.optimizer.zero_grad(set_to_none=True)
    return trained, sum(saved.values())


def _rate(member: Step, name: str) -> float:
    return member.dropouts[name].probability if name in member.dropouts else 0.0


def _laid_out(shapes: dict[str, torch.Size]) -> tuple[dict[str, tuple[int, torch.Size]], int]:
    """Where each weight begins in a row, and the row's length."""
    places, total = {}, 0
    for name, shape in shapes.items():
        places[name] = (total, shape)
        total += -(-shape.numel() // ALIGNED) * ALIGNED
    return places, total


def _padded(piece: Tensor) -> list[Tensor]:
    """A piece of all rows [runs, n] and the zeros up to where the next begins."""
    rest = -piece.shape[1] % ALIGNED
    return [piece, piece.new_zeros(len(piece), rest)] if rest else [piece]


def _unflattened(batch: Batch, runs: int) -> Batch:
    """[runs * B, ...] -> [runs, B, ...]"""
    return {name: _unflattened(x, runs) if isinstance(x, dict) else x.unflatten(0, (runs, -1)) for name, x in batch.items()}
