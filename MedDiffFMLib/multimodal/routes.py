"""Routes from any modalities to any others: one row for each step that something shipped can do.

The CT is in the middle: everything else is made from it, and so agrees with it by construction. A further modality
needs one row. Imports the standard library only.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..core.errors import InputError

CT_NAME, TEXT_NAME = "ct", "text"


@dataclass(frozen=True)
class Route:
    """One step.

    Attributes:
        made: modality that it makes.
        source: modality that it needs; empty for none.
        task: that does it.
        output: of the task.
        settings: of the task, as pairs.
    """

    made: str
    source: str
    task: str
    output: str
    settings: tuple[tuple[str, str], ...] = ()


ROUTES = (
    Route(CT_NAME, "mr", "translate", "ct", (("to", "ct"),)),
    Route(CT_NAME, "xray", "reconstruct", "ct"),
    Route(CT_NAME, "", "synthesize", "synthetic"),
    Route("mr", CT_NAME, "translate", "mr", (("to", "mr-t1"),)),
    Route("xray", CT_NAME, "radiograph", "radiograph"),
    Route(TEXT_NAME, CT_NAME, "describe", "description"),
)
"""The first that fits is taken."""


def made_by(routes: Sequence[Route] | None = None) -> list[str]:
    """Names of all that can be made, the CT first."""
    return list(dict.fromkeys(route.made for route in routes or ROUTES))


def parse_make(text: str, routes: Sequence[Route] | None = None) -> list[str]:
    """Names from words such as ``ct,xray,text``.

    Raises:
        InputError: none, or one that nothing makes.
    """
    names = [word.strip().lower() for word in text.split(",") if word.strip()]
    known = made_by(routes)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise InputError(
            f"Nothing makes {unknown[0]!r:.40}." if unknown else "Nothing is asked for.",
            f"Make one or more of {', '.join(known)}.",
        )
    return list(dict.fromkeys(names))


def plan_routes(given: Collection[str], wanted: Collection[str], routes: Sequence[Route] | None = None) -> list[Route]:
    """Steps in their order, after which everything wanted is there; nothing that is given is made.

    Args:
        given: modalities; a text is a prompt that steers, and never what a CT is made of alone.

    Raises:
        InputError: what is given cannot be used together.
    """
    routes = routes or ROUTES
    steps: list[Route] = []
    missing = [name for name in wanted if name not in given or name == TEXT_NAME]
    if CT_NAME not in given and (missing or CT_NAME in wanted):
        steps.append(_to_ct([name for name in given if name != TEXT_NAME], routes))
    for name in missing:
        if name != CT_NAME:
            steps.append(next(route for route in routes if route.made == name and route.source == CT_NAME))
    return steps


def _to_ct(images: Sequence[str], routes: Sequence[Route]) -> Route:
    """The step that makes a CT of all images that are given."""
    if len(images) > 1:
        names = " and ".join(sorted(images))
        raise InputError(
            f"No model that ships makes a CT of {names} together: their places in the body would have to be known to "
            "each other.",
            "Give one of them, or the CT itself.",
        )
    source = images[0] if images else ""
    found = next((route for route in routes if route.made == CT_NAME and route.source == source), None)
    if found is None:
        raise InputError(f"No model that ships makes a CT of {source}.", "Give a CT, or leave it out.")
    return found
