"""KEY=VALUE words of the command line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ..core.errors import InputError


def pairs(words: Iterable[str] | None) -> dict[str, str]:
    """KEY=VALUE words as a dictionary.

    Raises:
        InputError: a word without a key or "=".
    """
    values = {}
    for word in words or ():
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise InputError(f"{word!r} is not KEY=VALUE.", "Give --option head=linear.")
        values[key] = value
    return values


def options(words: Iterable[str] | None) -> dict[str, Any]:
    """The same, each VALUE read as JSON, or as the word that it is where it is none."""
    values: dict[str, Any] = {}
    for key, text in pairs(words).items():
        try:
            values[key] = json.loads(text)
        except ValueError:
            values[key] = text
    return values
