"""Completion of prompts, short names of what was understood, and near words."""

from __future__ import annotations

import pytest

from MedDiffFMLib.multimodal.facts.prompt import understand_prompt
from MedDiffFMLib.multimodal.facts.vocabulary import PHRASES, completed, in_short, nearest, suggestions
from MedDiffFMLib.multimodal.routes import made_by
from MedDiffFMLib.tasks.synthesize.spec import MODALITIES

RIGHT_UPPER = "nodule of 8 mm in the right upper lobe"


def test_whatever_is_offered_is_understood() -> None:
    for phrase in PHRASES:
        understood = understand_prompt(phrase)
        assert len(understood.statements) == 1 and not understood.rest, phrase


@pytest.mark.parametrize(
    ("written", "offered", "then"),
    [
        ("ch", "chest", "chest"),
        ("chest CT with con", "with contrast agent", "chest CT with contrast agent"),
        ("chest, lungs of 3", "lungs of 3 l", "chest, lungs of 3 l"),
        ("lob", "nodule in the left upper lobe", "nodule in the left upper lobe"),
        ("a nodule of 8 mm in the ri", RIGHT_UPPER, f"a {RIGHT_UPPER}"),
    ],
)  # fmt: skip
def test_the_end_of_a_prompt_is_completed(written: str, offered: str, then: str) -> None:
    assert offered in suggestions(written)
    assert completed(written, offered) == then


def test_nothing_is_offered_twice_or_behind_a_finished_word() -> None:
    assert suggestions("chest") == suggestions("chest ") == suggestions("chest, without contrast, with con") == []
    assert not {"chest", "abdomen"} & set(suggestions("chest, "))


def test_chips_are_short_and_slips_are_recognized() -> None:
    prompt = "chest with contrast agent, nodule in the right upper lobe, lungs of 3.5 l, noise of 20 HU, 5 mm slices"
    understood = understand_prompt(prompt)
    assert {in_short(one) for one in understood.statements} == {
        "chest", "contrast agent", "nodule, right, upper third", "lungs of 3.5 l", "noise of 20 HU", "slices of 5 mm",
    }  # fmt: skip
    assert understood.rest == []
    assert "contrast" in nearest("kontrast") and "nodule" in nearest("nodul") and nearest("spleen") == []


def test_check_boxes_are_of_all_that_can_be_made() -> None:
    assert list(MODALITIES)[0] == "ct" and set(MODALITIES) == set(made_by())
