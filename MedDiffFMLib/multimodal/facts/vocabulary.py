"""Vocabulary of prompts: phrases that complete what is being written, short names of what was understood, near words.

Imports no torch.
"""

from __future__ import annotations

import difflib
import functools
import re

from .fact import Statement
from .kinds import KINDS, WITH
from .prompt import in_words, understand_prompt

PHRASES = (
    "chest", "abdomen", "pelvis", "whole body", "head and neck",
    "with contrast agent", "without contrast agent",
    "thin slices", "5 mm slices", "thick slices",
    "noise of 20 HU", "low noise", "high noise",
    "lungs of 4 l", "right lung of 2 l", "left lung of 2 l",
    "30 % fat", "10 % bone", "360 mm wide",
    "nodule of 12 mm in the right upper lobe", "nodule in the right middle lobe", "nodule in the right lower lobe",
    "nodule in the left upper lobe", "nodule in the left lower lobe", "lung nodule",
)  # fmt: skip
"""Phrases that are understood as they stand; a user changes their numbers."""
MOST = 8
"""Phrases that are offered at a time."""
CONTAINED = 3
"""Letters from which on words inside a phrase are looked at, not its beginning alone."""
NEAR = 0.7
"""Likeness, as of ``difflib``, from which on a word is taken for a slip of the pen."""
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def suggestions(prompt: str) -> list[str]:
    """Phrases that the end of a prompt may become, about things that it does not speak of yet.

    At its beginning and behind a comma all of them may; behind a finished word nothing is offered.
    """
    begun, clause = _begun(prompt), _clause(prompt)
    part = prompt[begun:].lower()
    if not part and prompt[clause:].strip():
        return []
    said = {one.kind for one in understand_prompt(prompt[:begun]).statements} - {"nodule"}
    alone = not prompt[clause:begun].strip()
    fitting = [
        _with_number(phrase, part) for phrase in PHRASES if _fits(phrase, part, alone) and _kind(phrase) not in said
    ]
    first = sorted(fitting, key=lambda phrase: not phrase.lower().startswith(part))
    return [phrase for phrase in first if phrase.lower() != part][:MOST]


def completed(prompt: str, phrase: str) -> str:
    """A prompt with its end, which began ``phrase``, written out."""
    return prompt[: _begun(prompt)] + phrase


def nearest(word: str) -> list[str]:
    """Known words, at most two, that a word is likely to be a slip of; none for one that is known itself."""
    return [] if word.lower() in _words() else difflib.get_close_matches(word.lower(), _words(), 2, NEAR)


def in_short(said: Statement) -> str:
    """A statement of a prompt in as few words as tell it, such as ``nodule, right, upper third``."""
    values = said.values
    if said.unknown or said.likely:
        return in_words(said)
    if said.kind == "region":
        return str(values["region"])
    if said.kind == "contrast":
        return "contrast agent" if values["contrast"] == WITH else "no contrast agent"
    if said.kind == "slice_spacing":
        return f"slices of {values['spacing']:g} mm" if "spacing" in values else f"{values['thickness']} slices"
    if said.kind == "noise":
        return f"noise of {values['noise']} HU" if "noise" in values else f"{values['level']} noise"
    if said.kind == "body_width":
        return f"{values['width']} mm wide"
    if said.kind in ("fat", "bone"):
        return f"{values['share']:g} % {said.kind}"
    if said.kind in ("lungs", "lung_right", "lung_left"):
        lung = "lungs" if said.kind == "lungs" else KINDS[said.kind].title.removesuffix(" volume")
        return f"{lung} of {float(values['volume']) / 1000:g} l"
    if said.kind == "nodule":
        size = [f"{values['size']} mm"] if "size" in values else []
        return ", ".join(["nodule", *size, *(str(values[name]) for name in ("side", "third") if name in values)])
    return in_words(said)


def _clause(prompt: str) -> int:
    """Index behind the last mark that separates."""
    return max(prompt.rfind(mark) for mark in ",;\n") + 1


def _begun(prompt: str) -> int:
    """Index at which the unfinished end begins: the longest one that a phrase fits, at a word's beginning."""
    clause = _clause(prompt)
    starts = [clause + match.start() for match in re.finditer(r"\S+", prompt[clause:])]
    for start in starts:
        part = prompt[start:].lower()
        if any(_fits(phrase, part, alone=start == starts[0]) for phrase in PHRASES):
            return start
    return len(prompt)


def _fits(phrase: str, part: str, alone: bool) -> bool:
    """Whether a phrase begins like ``part``, numbers aside; a word ``alone`` may also begin one of its later words."""
    whole = _with_number(phrase, part).lower()
    return whole.startswith(part) or (alone and len(part) >= CONTAINED and f" {part}" in whole)


def _with_number(phrase: str, part: str) -> str:
    """The phrase with the number that the user wrote."""
    number = _NUMBER.search(part)
    return _NUMBER.sub(number[0], phrase, count=1) if number else phrase


@functools.cache
def _kind(phrase: str) -> str:
    return understand_prompt(phrase).statements[0].kind


@functools.cache
def _words() -> list[str]:
    """Words of the phrases and of the sentences that describe a scan."""
    sentences = [sentence for kind in KINDS.values() for sentence in kind.sentences]
    found = {word for text in (*PHRASES, *sentences) for word in re.findall(r"[a-z]{4,}", text.lower())}
    return sorted(found)
