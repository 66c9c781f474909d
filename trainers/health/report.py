"""The findings about a run, and the forms in which they are stored and shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rich.table import Table


@dataclass
class Finding:
    check: str
    measured: str
    warning: str | None = None  # what is wrong, the likely cause, and the override to try


@dataclass
class Report:
    facts: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    during_training: dict[str, str] = field(default_factory=dict)  # the findings of Watch

    @property
    def warnings(self) -> list[str]:
        return [finding.warning for finding in self.findings if finding.warning]

    def add(self, check: str, measured: str, warning: str | None = None) -> None:
        self.findings.append(Finding(check, measured, warning))

    def to_json(self) -> dict[str, Any]:
        checks = [vars(finding) for finding in self.findings]
        return {"facts": self.facts, "checks": checks, "warnings": self.warnings, "during_training": self.during_training}

    def numbers(self) -> dict[str, float]:
        """The facts that are numbers."""
        return {name: value for name, value in self.facts.items() if isinstance(value, (int, float))} | {
            "warnings": len(self.warnings)
        }

    def to_markdown(self) -> str:
        rows = [f"| {f.check} | {'look' if f.warning else 'ok'} | {f.measured} |" for f in self.findings]
        sentences = [f"- {sentence}" for sentence in (*self.warnings, *self.during_training.values())]
        return "\n".join(["| check | | measured |", "|---|---|---|", *rows, "", *sentences])

    def table(self) -> Table:
        shown = Table(title=f"{len(self.findings)} checks, {len(self.warnings)} with a warning", title_justify="left")
        for name in ("check", "", "measured"):
            shown.add_column(name)
        for finding in self.findings:
            shown.add_row(finding.check, "[red]look[/]" if finding.warning else "[green]ok[/]", finding.measured)
        return shown
