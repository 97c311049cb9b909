"""Declaration of the description. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ..base import Task, View
from ..inputs import OPTIONAL, Inputs
from ..output_kinds import Output, OutputKind
from ..parameters import parameter

COLUMNS = ("number", "sentence", "fact", "value", "unit", "certainty", "evidence", "r_mm", "a_mm", "s_mm")


@dataclass(frozen=True)
class Describe(Task):
    """Measured facts as sentences; none without a place where it can be checked."""

    name, title, action, icon = "describe", "Describe", "Describe", "describe.png"
    sentence = "Says in sentences what can be measured in a CT, each with the place to check it."
    inputs = Inputs(mask=OPTIONAL)
    outputs = (
        Output("description", OutputKind.TEXT),
        Output("facts", OutputKind.TABLE, columns=COLUMNS),
        Output("evidence", OutputKind.LABELS),
    )
    view = View.SENTENCES
    needs_model = False
    many = True

    certainty: float = parameter(
        0.7, "Sentences that are less certain are left out and listed as not assessed.", minimum=0.7, maximum=1
    )
