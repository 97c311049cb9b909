"""Two scans of a patient."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from MedDiffFMLib.core.errors import DependencyError
from MedDiffFMLib.tasks.compare.lesions import listed
from MedDiffFMLib.tasks.compare.registration import registering
from MedDiffFMLib.tasks.compare.spec import Compare
from Testing.unit.phantoms import body

from .rows import case


@case(
    "two scans in the wrong order",
    "The earlier scan is of 2026-03-01, the later one of 2026-02-01. Exchange the scans, or correct the dates.",
)
def _wrong_order(_: Path, __: pytest.MonkeyPatch) -> None:
    Compare(earlier_date="2026-03-01", later_date="2026-02-01")


@case("no date", "earlier_date is '1.2.2026'. Give a day as YYYY-MM-DD.")
def _no_date(_: Path, __: pytest.MonkeyPatch) -> None:
    Compare(earlier_date="1.2.2026")


@case(
    "comparison without SimpleITK",
    "The Python package SimpleITK is missing, which the comparison of two scans needs. "
    "Install it: pip install --upgrade 'meddifffm[compare]' (in Slicer: pip_install('-U SimpleITK')).",
    DependencyError,
)
def _no_simple_itk(_: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "SimpleITK", None)
    list(registering(body(), body()))


@case(
    "table of findings without places",
    "'{folder}/a.csv' has no places. "
    "Give a .csv file with the columns r_mm, a_mm, s_mm, and volume_mm3 or diameter_mm where they are known.",
)
def _no_places(folder: Path, _: pytest.MonkeyPatch) -> None:
    (folder / "a.csv").write_text("number,volume_mm3\n1,100\n", encoding="utf-8")
    listed(str(folder / "a.csv"))
