"""Declaration of the comparison. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from ...core.errors import InputError
from ..base import Task
from ..inputs import OPTIONAL, REQUIRED, Inputs, Scan
from ..output_kinds import Output, OutputKind
from ..parameters import parameter

if TYPE_CHECKING:
    from ...imaging.volume import Volume

LESIONS = (
    "number", "state", "where", "earlier_mm3", "later_mm3", "growth_percent", "earlier_diameter_mm",
    "later_diameter_mm", "doubling_days", "earlier_number", "later_number", "r_mm", "a_mm", "s_mm",
)  # fmt: skip
CHANGES = ("number", "direction", "where", "volume_mm3", "peak_z", "mean_hu", "r_mm", "a_mm", "s_mm")


@dataclass(frozen=True)
class Compare(Task):
    """Comparison of two CTs of one patient; the volume is the later one, on whose grid everything lies."""

    name, title, action, icon = "compare", "Compare", "Compare with the earlier scan", "compare.png"
    sentence = "Brings an earlier CT of the same patient onto a later one, and says what changed."
    inputs = Inputs(
        mask=OPTIONAL,
        scans=(
            Scan("earlier", "Earlier CT of the same patient.", REQUIRED, "Earlier CT", first=True),
            Scan("earlier_mask", "Lesions in the earlier CT, on its grid.", OPTIONAL, "Earlier lesions", on="earlier"),
        ),
    )
    outputs = (
        Output("aligned", OutputKind.CT, "earlier scan, moved"),
        Output("change", OutputKind.CHANGE),
        Output("lesions", OutputKind.POINTS, columns=LESIONS),
        Output("changes", OutputKind.POINTS, "changed regions", columns=CHANGES),
        Output("summary", OutputKind.TEXT),
    )
    needs_model = False

    earlier_date: str = parameter("", "Day of the earlier scan, YYYY-MM-DD, for doubling times.")
    later_date: str = parameter("", "Day of the later scan, YYYY-MM-DD.")
    growth: float = parameter(
        25.0, "Lesions whose volume grew by this much are called grown; shrunk where the earlier one was so much "
        "larger; stable in between.", unit="%", minimum=1, maximum=1000,
    )  # fmt: skip
    threshold: float = parameter(
        5.0, "Regions are listed whose averaged change is more than this many standard deviations of the noise.",
        minimum=2, maximum=50,
    )  # fmt: skip
    minimum_volume: float = parameter(
        100.0, "Smaller changed regions are not listed.", unit="mm3", minimum=0, maximum=1e6
    )
    misfit: float = parameter(
        0.5, "Error of the registration that edges are allowed before they count as change.", unit="mm",
        minimum=0, maximum=10, advanced=True,
    )  # fmt: skip
    earlier_findings: str = parameter(
        "", "Table (.csv) of the earlier scan's findings, as anomaly and describe write it, in place of a mask.",
        advanced=True,
    )  # fmt: skip
    later_findings: str = parameter("", "Table (.csv) of the later scan's findings, in place of a mask.", advanced=True)

    def check_together(self) -> None:
        """Refuse days that are none, and an earlier scan that is the later one."""
        self.days()

    def days(self) -> int | None:
        """From the earlier scan to the later one; None where a date is missing.

        Raises:
            InputError: no dates, or in the wrong order.
        """
        first, second = (_date(name, getattr(self, name)) for name in ("earlier_date", "later_date"))
        if first is None or second is None:
            return None
        if first >= second:
            raise InputError(
                f"The earlier scan is of {first}, the later one of {second}.",
                "Exchange the scans, or correct the dates.",
            )
        return (second - first).days

    def work(self, volume: Volume | None) -> float:
        """Unknown without a network."""
        return 0.0


def _date(name: str, text: str) -> date | None:
    if not text.strip():
        return None
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        raise InputError(f"{name} is {text!r:.40}.", "Give a day as YYYY-MM-DD.") from None
