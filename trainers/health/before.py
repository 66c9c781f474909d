"""Run, show and record all health checks that come before the first step."""

from __future__ import annotations

from conf.check import Request
from trainers.base import Trainer
from trainers.health import checks
from trainers.health.report import Report
from trainers.loop.batches import rows_of
from trainers.record.records import Records, console, say, write_json

PROBED = 4096  # the checks run the policy on a batch with about this many action slots


def check_health(trainer: Trainer, request: Request) -> Report:
    """The report from before the first step: shown, written to health.json, and given to the trainer, which adds to it."""
    rows = min(request.trainer.batch_size // request.trainer.accumulate, max(2, PROBED // trainer.policy.window.actions))
    sample = rows_of(trainer.source.batch(0), slice(rows))
    report = trainer.report = checks.before_training(
        trainer.policy,
        sample,
        trainer.data,
        trainer.validation.windows,
        trainer.bounds.floor,
        request.seed,
        trained=request.init_from is not None,
    )
    checks.clipping(report, request.trainer.grad_clip)
    checks.schedule(report, request.trainer.schedule, trainer.max_steps, request.trainer.eval_every)
    console.print(checks.parameter_table(trainer.policy))
    for finding in report.findings:
        if finding.check == "training targets":  # for learning histories this is shown even if nothing is wrong
            say(f"training targets: {finding.measured}")
    for warning in report.warnings:
        say(f"warning: {warning}")
    write_json(trainer.run.folder / "health.json", report.to_json())
    records = Records(trainer.run.folder, request.logger)
    records.health(report.to_markdown(), report.numbers())
    records.close()
    return report
