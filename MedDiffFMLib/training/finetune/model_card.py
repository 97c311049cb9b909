"""Model card of a fine-tuned model in Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...datasets.check_report import CheckReport
from ...runner.report import NOTICE
from .config import FinetuneConfig
from .registry import FinetuneTask


@dataclass(frozen=True)
class CardFacts:
    """Facts that a card tells beyond settings and data.

    Attributes:
        prior: ``name`` and ``sha256``.
        sha256: of the trained file.
        training: facts of the training, see :meth:`.keep_best.KeepBest.facts`.
        peak_memory: bytes by kind, "main" and "cuda".
        device: where it was trained.
        versions: of the packages that decide about the numbers.
    """

    name: str
    title: str
    prior: dict[str, str]
    sha256: str
    training: dict[str, Any]
    steps: int
    peak_memory: dict[str, int]
    device: str
    versions: dict[str, str]


def card(row: FinetuneTask, config: FinetuneConfig, data: CheckReport, facts: CardFacts) -> str:
    """The whole card."""
    training = facts.training
    memory = ", ".join(f"{kind} {size / 1e9:.1f} GB" for kind, size in facts.peak_memory.items() if size)
    labels = f"labels {', '.join(map(str, config.labels))}" if config.labels else "all labels"
    rows = {
        "task": f"{row.title}: {row.sentence}",
        "prior": f"{facts.prior['name']}, SHA-256 {facts.prior['sha256']}",
        "this file": f"SHA-256 {facts.sha256}",
        "data": f"{data.data}: {data.count('training')} training and {data.count('validation')} validation cases"
        + (f", {labels} of the masks" if row.needs_mask else ""),
        "settings": f"batch {config.batch}, learning rate {config.loop.learning_rate:g}, seed {config.seed}, "
        + ", ".join(f"{name} {value}" for name, value in config.options.items()),
        "length": f"{facts.steps} steps in {training['seconds']:.0f} s on {facts.device}; kept: step "
        f"{training['best_step']}",
        "peak memory": memory or "unknown",
        f"validation, {training['metric']}": _figure(training["value"]) + _before(training["before"]),
        "software": ", ".join(f"{name} {version}" for name, version in facts.versions.items()),
    }
    lines = [f"# Model card: {facts.name}", "", facts.title, "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in rows.items()]
    lines += ["", "## Cases", "", "| case | split | voxels | spacing, mm | marked, ml |", "|---|---|---|---|---|"]
    for case in data.cases:
        size, spacing = (" x ".join(f"{n:g}" for n in values) for values in (case.shape, case.spacing))
        marked = "" if case.marked_ml is None else f"{case.marked_ml:.3g}"
        lines.append(f"| {case.name} | {case.split} | {size} | {spacing} | {marked} |")
    if data.warnings:
        lines += ["", "## Warnings of the dataset check", ""]
        lines += [f"- {f.case}: {f.cause}" if f.case else f"- {f.cause}" for f in data.warnings]
    lines += [
        "",
        "## Limits",
        "",
        "The checkpoint was chosen by the validation cases above, so its figure flatters; test it on other patients. "
        "The model knows the scanners and patients of the training cases only. The license is that of your data.",
        "",
        NOTICE,
        "",
    ]
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _before(value: float | None) -> str:
    """Of a part that can do nothing untrained there is none."""
    return "" if value is None else f" (before training: {_figure(value)})"
