"""Description of a CT: measured facts, their sentences, a table, and a map of the evidence."""

from __future__ import annotations

from typing import Any

from ...multimodal.facts.assess import unknown
from ...multimodal.facts.fact import Fact
from ...multimodal.facts.grammar import write
from ...multimodal.facts.kinds import KINDS, UNSURE
from ...multimodal.facts.measure import STAGES, measuring
from ...multimodal.facts.slots import Number
from ..base import Case, Run, TaskResult
from .estimated import estimate
from .spec import CT, Describe

HEADING = "Measured in this CT by rules; no radiology report. What is not said was not looked for."


def describe(task: Describe, case: Case, run: Run) -> TaskResult:
    """Description of a CT; estimates about another scan, see :func:`.estimated.estimate`.

    Returns:
        ``description``: one sentence a line; ``facts``: a row a sentence; ``evidence``: label map (k, j, i) uint8.
        facts: ``facts``: kind, values, sentence, certainty and evidence of each; ``not_assessed``: kind and reason;
        ``labels``: what the numbers of the map stand for.
    """
    if task.modality != CT:
        return estimate(task, case, run)
    meter = run.meter(len(STAGES), STAGES[0])
    steps = measuring(case.scan, case.mask, case.anatomy)
    stage = next(steps)
    while True:
        meter.check()
        try:
            following = next(steps)
        except StopIteration as finished:
            measured = finished.value
            break
        meter.advance(stage=following)
        stage = following
    meter.advance(stage=stage)
    facts = [_asked(fact, task.certainty) for fact in measured.facts]
    written = [fact for fact in facts if fact.evidence is not None]
    missing = [fact for fact in facts if fact.evidence is None]
    sentences = [write(fact.statement) for fact in (*written, *missing)]
    return TaskResult(
        volumes={"evidence": measured.evidence},
        tables={"facts": [_row(number, fact) for number, fact in enumerate(written, 1)]},
        texts={"description": "\n".join([HEADING, "", *sentences, ""])},
        facts={
            "facts": [_record(fact) for fact in written],
            "not_assessed": [{"fact": fact.statement.kind, "reason": fact.statement.unknown} for fact in missing],
            "labels": measured.labels,
        },
    )


def _asked(fact: Fact, certainty: float) -> Fact:
    """The fact, if it is as certain as the user wishes."""
    return unknown(fact.statement.kind, UNSURE) if fact.evidence and fact.certainty < certainty else fact


def _row(number: int, fact: Fact) -> dict[str, Any]:
    """A sentence as a row of the table."""
    said, evidence = fact.statement, fact.evidence
    assert evidence is not None
    kind = KINDS[said.kind]
    slot = kind.slots[kind.main]
    r, a, s = (round(x, 1) for x in evidence.point)
    return {
        "number": number, "sentence": write(said), "fact": kind.title, "value": said.values[kind.main],
        "unit": slot.unit if isinstance(slot, Number) else "", "certainty": fact.certainty,
        "evidence": evidence.mask or evidence.plane or "point", "r_mm": r, "a_mm": a, "s_mm": s,
    }  # fmt: skip


def _record(fact: Fact) -> dict[str, Any]:
    """All about a fact, JSON-ready."""
    said = fact.statement
    assert fact.evidence is not None
    slots = KINDS[said.kind].slots
    units = {name: slot.unit for name, slot in slots.items() if isinstance(slot, Number) and slot.unit}
    return {
        "fact": said.kind, "values": dict(said.values), "units": units, "sentence": write(said),
        "certainty": fact.certainty, "evidence": fact.evidence.as_dict(),
    }  # fmt: skip
