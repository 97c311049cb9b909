"""Tasks between modalities beside their baselines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from MedDiffFMLib.evaluation.quality.cases import Case, load_case
from MedDiffFMLib.evaluation.quality.degradations import Plan
from MedDiffFMLib.evaluation.quality.modalities import (
    describe_rows,
    radiograph_methods,
    radiograph_rows,
    translate_rows,
)
from MedDiffFMLib.evaluation.quality.protocols import OWN
from MedDiffFMLib.imaging.io import write_volume
from Testing.unit.phantoms import body

PLAN = Plan(slab_mm=None)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A small body in a file."""
    path = tmp_path_factory.mktemp("cases") / "a.nrrd"
    write_volume(body(), path)
    return Case("a", path, region="abdomen")


@pytest.mark.slow
def test_line_integrals_agree_with_sums_in_fine_steps(case: Case) -> None:
    rows = radiograph_rows(load_case(case, None), PLAN, None, radiograph_methods())
    (own,) = [row.values for row in rows if row.method == OWN]
    assert len(rows) == 2
    assert own["error"] < 0.2
    assert own["correlation"] > 0.9999


def test_facts_are_judged_by_what_the_datalist_and_the_file_say(case: Case) -> None:
    said = {"region": "abdomen", "thickness": "wrong", "written": 2}
    (row,) = describe_rows(load_case(case, None), PLAN, None, {"some": lambda volume: said})
    assert (row.values["region"], row.values["thickness"], row.values["written"]) == (1.0, 0.0, 2.0)


def test_a_perfect_translation_has_no_error_and_a_case_without_an_mr_no_row(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_case(case, None)
    assert not translate_rows(loaded, PLAN, None, {})
    truth = np.random.default_rng(0).integers(-900, 900, (8, 8, 8)).astype(np.int16)
    everywhere = np.ones(truth.shape, bool)
    pair = {"hounsfield": truth, "mr": truth / 900.0 + 1, "seen": everywhere, "body": everywhere, "mr_body": everywhere}
    monkeypatch.setattr("MedDiffFMLib.evaluation.quality.modalities.stored", lambda *_: pair)
    with_mr = replace(loaded, case=replace(case, mr=Path("b.nrrd")))
    (row,) = translate_rows(with_mr, PLAN, None, {"truth": lambda given: {"ct": given["hounsfield"].astype(float)}})
    assert row.values["MAE"] == 0 and row.values["bone Dice"] == 1 and row.values["NMI"] == pytest.approx(1)
