"""Sentences say exactly what the facts are, and prompts are understood or said not to be."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from MedDiffFMLib.multimodal.facts.assess import unknown
from MedDiffFMLib.multimodal.facts.fact import Fact, Statement
from MedDiffFMLib.multimodal.facts.grammar import read, read_sentences, statement, write
from MedDiffFMLib.multimodal.facts.kinds import KINDS, REASONS
from MedDiffFMLib.multimodal.facts.prompt import understand_prompt
from MedDiffFMLib.multimodal.facts.slots import Words


@st.composite
def statements(draw: st.DrawFn) -> Statement:
    """Any statement, of any kind and with any values."""
    name = draw(st.sampled_from(sorted(KINDS)))
    if draw(st.integers(0, 9)) == 0:
        return Statement(name, unknown=draw(st.sampled_from(REASONS)))
    values = {
        slot: draw(st.sampled_from(kind.choices) if isinstance(kind, Words) else st.floats(-1e6, 1e6, allow_nan=False))
        for slot, kind in KINDS[name].slots.items()
    }
    return statement(name, likely=draw(st.booleans()), **values)


@pytest.mark.slow
@given(said=statements(), variant=st.integers(0, 5))
@settings(max_examples=400, deadline=None)
def test_fact_to_sentence_to_fact(said: Statement, variant: int) -> None:
    """Whatever the fact and the wording; spaces and line breaks do not matter."""
    sentence = write(said, variant)
    assert read(sentence) == said
    assert read(f"  {sentence.replace(' ', chr(10), 1)} ") == said


@pytest.mark.slow
@given(text=st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_is_read_or_told_back(text: str) -> None:
    said, rest = read_sentences(text)
    assert len(said) + len(rest) == len([line for line in text.splitlines() if line.strip()])
    understand_prompt(text).told()


def test_a_corrected_description_is_read_again() -> None:
    said = [statement("contrast", contrast="with"), statement("lung_right", volume=2001.4, likely=True)]
    text = "\n".join(write(one) for one in said).replace("2001", "2105")
    assert read_sentences(f"{text}\nA line of my own.\n") == (
        [said[0], statement("lung_right", volume=2105, likely=True)],
        ["A line of my own."],
    )


def test_forty_kinds_with_titles_of_their_own() -> None:
    assert len(KINDS) >= 40 and len({kind.title for kind in KINDS.values()}) == len(KINDS)


def test_no_statement_without_evidence() -> None:
    with pytest.raises(AssertionError):
        Fact(statement("body_depth", depth=200), 1.0, None)
    assert write(unknown("contrast", REASONS[0]).statement).startswith("Not assessed: contrast agent (")


@pytest.mark.parametrize("values", [{}, {"side": "right"}, {"share": 3.0}, {"share": 3.0, "volume": 1, "more": 2}])
def test_statements_with_other_slots_are_refused(values: dict) -> None:
    with pytest.raises(ValueError, match="has the slots share, volume"):
        statement("fat", **values)
    with pytest.raises(ValueError, match="is none of"):
        statement("contrast", contrast="maybe")


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        (
            "non-contrast chest CT with 1 mm slices and a 12 mm nodule in the lower third of the right lung",
            "Understood: nodule candidate: size 12 mm, right, lower third; slice spacing: spacing 1.00 mm, thin; "
            "contrast agent: without; region: chest.",
        ),
        (
            "Contrast-enhanced abdomen, purple, noise of 20 HU",
            "Understood: contrast agent: with; noise: noise 20 HU; region: abdomen. Not understood: purple.",
        ),
        (
            "The scan shows the chest. 30 % fat, lungs of 5.5 l; a left lung nodule and a nodule of 9 mm",
            "Understood: region: chest; fat: share 30 %; lung volume: volume 5500 ml; nodule candidate: left; "
            "nodule candidate: size 9 mm.",
        ),
        ("chest and abdomen", "Understood: region: chest. Not understood: abdomen."),
        ("no nodules", "Understood: nothing. Not understood: no nodules."),
        ("", "Understood: nothing."),
    ],
)
def test_prompts(prompt: str, told: str) -> None:
    assert understand_prompt(prompt).told() == told


@pytest.mark.parametrize(
    ("told", "prompts"),
    [
        (
            "contrast agent: without; region: chest",
            ("CT of the chest without contrast", "non contrast chest CT", "Noncontrast thorax", "plain CT of the lungs",
             "NCCT chest", "chest CT w/o i.v. contrast", "unenhanced thoracic scan", "chest, no contrast agent"),
        ),
        (
            "contrast agent: with; region: abdomen",
            ("contrast-enhanced abdomen", "CT abdomen w/ contrast", "CECT of the liver", "portal-venous-phase abdomen",
             "abdomen after i.v. contrast", "post-contrast CT of the kidneys", "CT angiography of the abdomen"),
        ),
        (
            "slice spacing: thin; region: chest",
            ("thin-slice lung scan", "HRCT thorax", "chest CT, thin cuts", "high-resolution chest"),
        ),
        (
            "slice spacing: spacing 5.00 mm, thick; region: abdomen",
            ("5-mm-thick slices of the abdomen", "abdomen, slice thickness 5 mm", "5mm cuts of the liver",
             "abdomen with a slice spacing of 5.0 mm", "5 mm thick CT of the abdomen"),
        ),
        ("noise: high; region: pelvis", ("low-dose pelvis", "a very noisy pelvis", "pelvis with lots of noise")),
        ("region: whole body", ("whole-body CT", "chest, abdomen and pelvis", "thorax abdomen pelvis")),
        ("right lung volume: volume 2500 ml", ("right lung of 2.5 l", "right lung volume 2500 ml")),
    ],
)  # fmt: skip
def test_paraphrases_say_the_same(told: str, prompts: tuple[str, ...]) -> None:
    assert {prompt: understand_prompt(prompt).told() for prompt in prompts} == dict.fromkeys(
        prompts, f"Understood: {told}."
    )
