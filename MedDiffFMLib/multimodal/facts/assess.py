"""Facts from what was measured: sure, likely, or not assessed."""

from __future__ import annotations

from .fact import Evidence, Fact, Statement, Value
from .grammar import statement
from .kinds import UNSURE

SURE, WRITTEN = 0.95, 0.7
"""Below the first a sentence begins with "Probably", below the second it is not written."""


def known(kind: str, evidence: Evidence, certainty: float = 1.0, **values: Value) -> Fact:
    """A fact that was measured; one that is too uncertain to be written is not assessed."""
    if certainty < WRITTEN:
        return unknown(kind, UNSURE)
    return Fact(statement(kind, likely=certainty < SURE, **values), certainty, evidence)


def unknown(kind: str, reason: str) -> Fact:
    """A kind that was not assessed, one of ``kinds.REASONS`` says why."""
    return Fact(Statement(kind, unknown=reason), 0.0)
