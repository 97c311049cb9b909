"""Prompts: what a user asks for in words of their own, as statements, and the words that were not understood.

Sentences of the grammar are read exactly; of anything else known phrases are picked out. But for nodules, the first
phrase about a thing counts, and a second one is among what was not understood.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from .acquisition import thickness
from .fact import Statement, Value
from .grammar import read
from .kinds import KINDS, LEFT, RIGHT, WITH, WITHOUT
from .slots import Number

_NUMBER = r"(?P<number>\d+(?:\.\d+)?)"
_FILLING = re.compile(
    "an?|and|as|at|by|cts?|computed|each|for|from|ha[sv]e?|i|images?|in|is|its?|like|make|me|of|on|or|patient|please"
    "|scans?|show|showing|shows|that|the|there|this|to|tomography|want|which|with|would"
)
"""Words without which a prompt says the same."""
_WRITTEN_OUT = (
    (re.compile(r"(?<=[a-z])[-\u2010\u2011](?=\w)|(?<=\d)[-\u2010\u2011](?=[a-z])"), " "),
    (re.compile(r"\bw/o\b"), "without"),
    (re.compile(r"\bw/\s*(?=\w)"), "with "),
)
"""Spellings of one thing, and the one that phrases know: a hyphen is a space."""
_INTRAVENOUS = re.compile(r"\bi\.\s?v\.(?=\s|$)", re.IGNORECASE)
"""Written out first, for its dots end no sentence."""


@dataclass(frozen=True)
class Understood:
    """Wishes that a prompt was understood to state.

    Attributes:
        statements: with those slots alone that the prompt speaks of.
        rest: words and numbers that were not understood, in their order.
    """

    statements: list[Statement]
    rest: list[str]

    def told(self) -> str:
        """Both in a sentence each, for the user to check."""
        parts = [in_words(said) for said in self.statements]
        understood = f"Understood: {'; '.join(parts) if parts else 'nothing'}."
        return f"{understood} Not understood: {', '.join(self.rest)}." if self.rest else understood


@dataclass(frozen=True)
class _Phrase:
    """Words that mean something.

    Attributes:
        values: slots from the match.
    """

    kind: str
    pattern: re.Pattern[str]
    values: Callable[[re.Match[str]], dict[str, Value]]


def _fixed(kind: str, pattern: str, **values: Value) -> _Phrase:
    return _Phrase(kind, re.compile(rf"\b(?:{pattern})\b"), lambda match: dict(values))


def _number(kind: str, pattern: str, slot: str, factor: float = 1.0) -> _Phrase:
    return _Phrase(
        kind,
        re.compile(rf"(?<![\w.])(?:{pattern})(?!\w)"),
        lambda match: {slot: KINDS[kind].slots[slot].held(factor * float(match["number"]))},
    )


def _nodule(match: re.Match[str]) -> dict[str, Value]:
    """Slots of a nodule in whatever order a prompt names them."""
    found: dict[str, Value] = {}
    words = match[0]
    size = re.search(r"(\d+(?:\.\d+)?) ?mm", words)
    if size:
        found["size"] = KINDS["nodule"].slots["size"].held(float(size[1]))
    side = re.search(rf"\b({RIGHT}|{LEFT})\b", words)
    if side:
        found["side"] = side[1]
    third = re.search(rf"\b(upper|middle|lower) {_PART}", words)
    if third:
        found["third"] = f"{third[1]} third"
    return found


def _slices(match: re.Match[str]) -> dict[str, Value]:
    spacing = float(match["a"] or match["b"])
    return {"spacing": round(spacing, 2), "thickness": thickness(spacing)}


_NO_NODULE = re.compile(r"\b(?:no|without(?: any)?|free of) (?:lung |pulmonary )?nodules?\b")
"""No kind of fact says what is absent; taken for a nodule, it would be found."""
_PART = "(?:third|lobe|zone|field)"
"""Readers name lobes where the facts have thirds of the lung's height, which is nearly the same in the upper one."""
_SLICE = "(?:slices?|cuts?|sections?)"
_AGENT = "(?:iv |intravenous )?contrast(?: agent| medium| media| enhancement)?"
_CHEST = "(?:chest|thorax|thoracic|lungs?)"
_PLACE = (
    r"(?:(?: of \d+(?:\.\d+)? ?mm| in the| of the|,"
    rf"| (?:upper|middle|lower) {_PART}| right| left| lung\b(?! of))*)"
)
_PHRASES = (
    _Phrase(
        "nodule",
        re.compile(rf"(?:\b\d+(?:\.\d+)? ?mm )?(?:\b(?:right|left) )?\b(?:lung |pulmonary )?nodules?\b{_PLACE}"),
        _nodule,
    ),
    _Phrase(
        "slice_spacing",
        re.compile(
            rf"(?<![\w.])(?P<a>\d+(?:\.\d+)?) ?mm (?:thick(?: {_SLICE}| ct)?|{_SLICE}(?: thickness| spacing)?)\b"
            rf"|\b{_SLICE} (?:thickness |spacing )?(?:of )?(?P<b>\d+(?:\.\d+)?) ?mm\b"
        ),
        _slices,
    ),
    _fixed("slice_spacing", rf"thin(?:ly sliced| {_SLICE}| ct)|hrct|high resolution", thickness="thin"),
    _fixed("slice_spacing", rf"thick {_SLICE}", thickness="thick"),
    _fixed(
        "contrast",
        rf"(?:without|no)(?: any)? {_AGENT}|non ?(?:{_AGENT}|enhanced)|unenhanced|uncontrasted|native|plain"
        "|pre contrast|ncct",
        contrast=WITHOUT,
    ),
    _fixed(
        "contrast",
        rf"(?:with|after|post) {_AGENT}|(?:contrast )?enhanced|(?:iv|intravenous) contrast(?: agent| medium)?|cect"
        "|(?:(?:portal )?venous|arterial) phase|angiogra(?:phy|m)|cta|contrast (?:agent|medium|media)",
        contrast=WITH,
    ),
    _number("noise", rf"{_NUMBER} ?hu (?:of )?noise", "noise"),
    _number("noise", rf"noise of {_NUMBER} ?hu", "noise"),
    _fixed("noise", "(?:low|(?:very )?little|no|without) noise|noise ?free", level="low"),
    _fixed("noise", "(?:high|much|strong|lots of|a lot of) noise|(?:very )?noisy|low dose", level="high"),
    _number("fat", rf"{_NUMBER} ?(?:%|percent) (?:body )?fat", "share"),
    _number("bone", rf"{_NUMBER} ?(?:%|percent) bone", "share"),
    *(
        _number(f"lung_{side}", rf"{side} lung (?:volume )?(?:of )?{_NUMBER} ?{unit}", "volume", factor)
        for side in (RIGHT, LEFT)
        for unit, factor in (("ml", 1.0), ("l", 1000.0))
    ),
    _number("lungs", rf"lungs? (?:volume )?of {_NUMBER} ?ml", "volume"),
    _number("lungs", rf"lungs? (?:volume )?of {_NUMBER} ?l", "volume", 1000.0),
    _number("body_width", rf"{_NUMBER} ?mm wide", "width"),
    _fixed("region", rf"whole body|trunk|{_CHEST},? (?:and )?abdomen,? (?:and )?pelvis", region="whole body"),
    _fixed("region", "heads?(?: and necks?)?|necks?|brain|skull", region="head and neck"),
    _fixed("region", _CHEST, region="chest"),
    _fixed("region", "abdomen|abdominal|liver|kidneys?", region="abdomen"),
    _fixed("region", "pelvis|pelvic|hips?", region="pelvis"),
)  # fmt: skip


def understand_prompt(prompt: str) -> Understood:
    """Statements of a prompt, and what is left of it."""
    said: list[Statement] = []
    rest: list[str] = []
    for sentence in re.split(r"(?<=[.!?;])\s+|\n", _INTRAVENOUS.sub("iv", prompt)):
        exact = read(sentence) if sentence.strip() else None
        if exact is not None:
            said.append(exact)
        else:
            _pick(sentence, said, rest)
    return Understood(said, rest)


def _pick(sentence: str, said: list[Statement], rest: list[str]) -> None:
    """Known phrases of a sentence, in the order of the table; what they took is not looked at again."""
    text = " ".join(sentence.lower().split())
    for pattern, written in _WRITTEN_OUT:
        text = pattern.sub(written, text)
    rest += _NO_NODULE.findall(text)
    text = _NO_NODULE.sub(";", text)
    for phrase in _PHRASES:
        while match := phrase.pattern.search(text):
            if phrase.kind != "nodule" and any(one.kind == phrase.kind for one in said):
                break
            said.append(Statement(phrase.kind, phrase.values(match)))
            text = f"{text[: match.start()]} ; {text[match.end() :]}"
    words = re.findall(r"[\w%.-]*\w[\w%-]*", text)
    rest += [word for word in words if not _FILLING.fullmatch(word)]


def in_words(said: Statement) -> str:
    """A statement with some of its slots, in a few words."""
    kind = KINDS[said.kind]
    if said.unknown:
        return f"{kind.title} not assessed"
    parts = []
    for name, value in said.values.items():
        slot = kind.slots[name]
        written = slot.write(value)
        parts.append(f"{name} {written} {slot.unit}".rstrip() if isinstance(slot, Number) else written)
    return f"{kind.title}{': ' if parts else ''}{', '.join(parts)}"
