"""Routes from any modalities to any others: all subsets, and a further modality with one row."""

from __future__ import annotations

from itertools import combinations

import pytest

from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.multimodal.routes import ROUTES, Route, made_by, parse_make, plan_routes

ALL = ("ct", "mr", "xray", "text")
SUBSETS = [subset for size in range(5) for subset in combinations(ALL, size)]


@pytest.mark.parametrize("given", SUBSETS, ids=lambda subset: "+".join(subset) or "nothing")
def test_everything_can_be_made_of_any_subset_or_it_says_why(given: tuple[str, ...]) -> None:
    if {"mr", "xray"} <= set(given) and "ct" not in given:
        with pytest.raises(InputError, match="a CT of mr and xray together"):
            plan_routes(given, ALL)
        return
    steps = plan_routes(given, ALL)
    there = set(given)
    for step in steps:
        assert step.made not in there - {"text"}, "what is given is not made"
        assert not step.source or step.source in there
        there.add(step.made)
    assert there == set(ALL)


def test_one_row_adds_a_modality() -> None:
    routes = (*ROUTES, Route("pet", "ct", "toy", "pet"))
    assert parse_make("pet,ct", routes) == ["pet", "ct"]
    assert [step.made for step in plan_routes((), ("ct", "pet"), routes)] == ["ct", "pet"]
    assert [step.made for step in plan_routes(("ct",), ("pet",), routes)] == ["pet"]
    with pytest.raises(InputError, match="makes a CT of pet"):
        plan_routes(("pet",), ("ct",), routes)


@pytest.mark.parametrize(("words", "cause"), [("", "Nothing is asked for"), ("ct,pet", "Nothing makes 'pet'")])
def test_words_that_make_nothing_are_refused(words: str, cause: str) -> None:
    with pytest.raises(InputError, match=cause):
        parse_make(words)


def test_all_that_is_made_has_a_name() -> None:
    assert set(made_by()) == set(ALL)
