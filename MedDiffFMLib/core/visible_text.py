"""Text from foreign data for a screen: nothing in it is obeyed by a terminal. Imports the standard library only."""

from __future__ import annotations

import json
import unicodedata

_OBEYED = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories: control characters, marks that turn the direction of writing or have no width, half surrogates,
separators of lines and paragraphs."""
_HARMLESS = "\u200c\u200d\u00ad"
"""Joiners that Persian, Indic scripts and emoji are written with, and the soft hyphen."""


def visible(text: str, keep: str = "") -> str:
    """The text with each character that a terminal would obey as its escape, such as ``\\x1b``.

    Args:
        keep: characters that stay, such as the line ends of a text of our own.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter in keep or not _is_obeyed(letter) else _escape(letter) for letter in text)


def visible_json(text: str) -> str:
    """A JSON text, still one and of the same meaning, without such characters; JSON itself forbids some of them."""
    return "".join(json.dumps(letter)[1:-1] if letter != "\n" and _is_obeyed(letter) else letter for letter in text)


def _is_obeyed(letter: str) -> bool:
    return not letter.isprintable() and letter not in _HARMLESS and unicodedata.category(letter) in _OBEYED


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")
