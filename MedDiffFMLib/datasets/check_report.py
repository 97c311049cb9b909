"""Result of a dataset check, as text for people and as JSON for panels."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ..core.errors import InputError
from .datalist import SPLITS


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (error: training would fail or mislead) or doubtful (warning).

    Attributes:
        code: short name; docs/how-to/fine-tune.md explains each.
        case: name of the case, "" for the whole dataset.
    """

    level: str
    code: str
    case: str
    cause: str
    remedy: str


@dataclass
class CaseFacts:
    """Facts that were seen of one case.

    Attributes:
        shape: (i, j, k).
        spacing: (i, j, k) in mm.
        labels: numbers in the mask without 0.
        marked_ml: volume under the mask, None without a mask.
    """

    name: str
    split: str
    patient: str
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    labels: tuple[int, ...] = ()
    marked_ml: float | None = None


@dataclass
class CheckReport:
    """The outcome of a dataset check.

    Attributes:
        data: what was checked.
        task: fine-tuning task that it was checked for.
        validation: names of the validation cases, as given or as chosen.
    """

    data: str
    task: str
    cases: list[CaseFacts] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    validation: list[str] = field(default_factory=list)

    @property
    def errors(self) -> list[Finding]:
        """Findings that forbid training."""
        return [finding for finding in self.findings if finding.level == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """Findings that do not."""
        return [finding for finding in self.findings if finding.level != "error"]

    def add(self, level: str, code: str, case: str, cause: str, remedy: str) -> None:
        """One more finding."""
        self.findings.append(Finding(level, code, case, cause, remedy))

    def count(self, split: str) -> int:
        """Cases of a split."""
        return sum(case.split == split for case in self.cases)

    def text(self) -> str:
        """The whole report, errors first."""
        from ..core.text_table import columns

        lines = [f"Dataset check of {self.data} for {self.task}: {self.summary()}."]
        for finding in (*self.errors, *self.warnings):
            where = f"{finding.case}: " if finding.case else ""
            lines += ["", f"{finding.level.upper()} [{finding.code}] {where}{finding.cause}", f"    {finding.remedy}"]
        if self.cases:
            rows = [["case", "split", "patient", "voxels", "spacing (mm)", "labels", "marked (ml)"]]
            rows += [_row(case) for case in self.cases]
            lines += ["", columns(rows)]
        return "\n".join(lines) + "\n"

    def summary(self) -> str:
        """Counts in one line."""
        counts = " and ".join(f"{self.count(split)} {split}" for split in SPLITS)
        return f"{counts} cases, {_number(self.errors, 'error')}, {_number(self.warnings, 'warning')}"

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "data": self.data,
            "task": self.task,
            "status": "error" if self.errors else "ok",
            "summary": self.summary(),
            "validation": self.validation,
            "findings": [asdict(finding) for finding in (*self.errors, *self.warnings)],
            "cases": [asdict(case) for case in self.cases],
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> CheckReport:
        """Report from the content that :meth:`as_dict` gave; raises KeyError or TypeError for anything else."""
        rows: list[dict[str, Any]] = content["cases"]
        plain: list[dict[str, Any]] = [
            {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows
        ]
        cases = [CaseFacts(**row) for row in plain]
        findings = [Finding(**row) for row in content["findings"]]
        return cls(content["data"], content["task"], cases, findings, content["validation"])

    def raise_for_errors(self, where: str = "") -> None:
        """Raise InputError with the first errors in words.

        Args:
            where: file that holds the whole report.
        """
        if not self.errors:
            return
        first = self.errors[0]
        more = f" ({len(self.errors) - 1} more errors)" if len(self.errors) > 1 else ""
        case = f"{first.case}: " if first.case else ""
        report = f" The whole report is in {where}." if where else ""
        raise InputError(f"The dataset cannot be trained on: {case}{first.cause}{more}", f"{first.remedy}{report}")


def _number(findings: list[Finding], noun: str) -> str:
    return f"{len(findings)} {noun}{'' if len(findings) == 1 else 's'}"


def _row(case: CaseFacts) -> list[str]:
    labels = ", ".join(map(str, case.labels[:6])) + (", ..." if len(case.labels) > 6 else "")
    marked = "" if case.marked_ml is None else f"{case.marked_ml:.3g}"
    size, spacing = (" x ".join(f"{n:g}" for n in values) for values in (case.shape, case.spacing))
    return [case.name, case.split, case.patient, size, spacing, labels, marked]
