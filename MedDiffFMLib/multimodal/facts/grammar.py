"""English sentences of statements, and statements of sentences: each way exactly undoes the other."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from .fact import Statement, Value
from .kinds import KINDS, REASONS

LIKELY = "Probably: "
_UNKNOWN = "Not assessed: {title} ({reason})."
_SLOT = re.compile(r"\{(\w+)\}")
_TITLES = {kind.title: name for name, kind in KINDS.items()}


def statement(kind: str, /, likely: bool = False, **values: Value) -> Statement:
    """A statement with its numbers rounded as they are written, and its slots in their order.

    Raises:
        ValueError: a slot is missing, unknown or holds a word that it cannot.
    """
    slots = KINDS[kind].slots
    if set(values) != set(slots):
        raise ValueError(f"{kind} has the slots {', '.join(slots)}, not {', '.join(values)}")
    for name, slot in slots.items():
        slot.write(values[name])
    return Statement(kind, {name: slot.held(values[name]) for name, slot in slots.items()}, likely)


def write(said: Statement, variant: int = 0) -> str:
    """The sentence of a statement.

    Args:
        variant: which of the kind's sentences, counted on beyond the last one from the first.
    """
    kind = KINDS[said.kind]
    if said.unknown:
        return _UNKNOWN.format(title=kind.title, reason=said.unknown)
    sentence = kind.sentences[variant % len(kind.sentences)]
    words = {name: slot.write(said.values[name]) for name, slot in kind.slots.items()}
    return f"{LIKELY if said.likely else ''}{_SLOT.sub(lambda match: words[match[1]], sentence)}"


def read(sentence: str) -> Statement | None:
    """The statement of one sentence, spaces around it aside; None where the grammar has no such sentence."""
    text = " ".join(sentence.split())
    unknown = _unknown_pattern().fullmatch(text)
    if unknown:
        return Statement(_TITLES[unknown["title"]], unknown=unknown["reason"])
    likely = text.startswith(LIKELY)
    for rule in _rules():
        match = rule.pattern.fullmatch(text.removeprefix(LIKELY))
        if match:
            slots = KINDS[rule.kind].slots
            values = {name: slot.read(match[name.upper()]) for name, slot in slots.items()}
            return Statement(rule.kind, values, likely)
    return None


def read_sentences(text: str) -> tuple[list[Statement], list[str]]:
    """Statements of a text with one sentence a line, and the lines that are none; empty lines do not count."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [read(line) for line in lines]
    return [one for one in said if one], [line for line, one in zip(lines, said, strict=True) if one is None]


@dataclass(frozen=True)
class _Rule:
    """One sentence as a pattern whose groups are the slots in capitals, which are no words of Python."""

    kind: str
    pattern: re.Pattern[str]


@functools.cache
def _rules() -> list[_Rule]:
    return [_rule(name, sentence) for name, kind in KINDS.items() for sentence in kind.sentences]


def _rule(kind: str, sentence: str) -> _Rule:
    parts = _SLOT.split(sentence)  # text and names of slots in turn
    slots = KINDS[kind].slots
    pattern = "".join(
        f"(?P<{part.upper()}>{slots[part].pattern})" if number % 2 else re.escape(part)
        for number, part in enumerate(parts)
    )
    return _Rule(kind, re.compile(pattern))


@functools.cache
def _unknown_pattern() -> re.Pattern[str]:
    titles, reasons = ("|".join(map(re.escape, words)) for words in (_TITLES, REASONS))
    return re.compile(rf"Not assessed: (?P<title>{titles}) \((?P<reason>{reasons})\)\.")
