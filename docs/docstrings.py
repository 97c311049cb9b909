"""Docstrings as the site's generator wants them: one name an entry, no roles of Sphinx."""

from __future__ import annotations

import re
from typing import Any

import griffe

SHARED = re.compile(r"(?m)^( +)(\w+(?:, \w+)+): (.*(?:\n\1 +\S.*)*)")
"""``a, b: text`` with the lines that continue it."""
ROLE = re.compile(r":(?:class|func|meth|mod):`~?\.*([^`]+)`")


class Docstrings(griffe.Extension):
    """Changes every docstring when it is read; unknown names of parameters are still warned about."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Repeat the text of an entry that has several names for each of them."""
        if obj.docstring is not None:
            obj.docstring.value = SHARED.sub(_apart, ROLE.sub(r"`\1`", obj.docstring.value))


def _apart(match: re.Match[str]) -> str:
    indent, names, text = match.groups()
    return "\n".join(f"{indent}{name}: {text}" for name in names.split(", "))
