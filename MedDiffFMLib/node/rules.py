"""Rules of a node: which series, which task, where the results go."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..core.safe_load import parse_json
from ..dicom.sources.address import Address, parse_target
from ..runner.settings import RunSettings
from ..tasks.inputs import REQUIRED
from ..tasks.registry import TASKS

TAGS = (
    "Modality", "SeriesDescription", "StudyDescription", "BodyPartExamined", "ProtocolName", "ConvolutionKernel",
    "StationName", "InstitutionName", "Manufacturer", "ImageType",
)  # fmt: skip
"""Keywords that a rule may ask for, besides ``caller``."""
SENDER = "sender"
"""As an address: whoever sent the series."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_FIELDS = ("name", "task", "match", "to")
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Rule:
    """One task for the series that fit.

    Attributes:
        name: of the folder of its results.
        settings: checked.
        force: values that do not look like those of the modality are worked on.
        match: what a series must have, by DICOM keyword or ``caller``; ``*`` stands for any letters, in either case.
        to: where results go; None stands for the sender.
    """

    name: str
    settings: RunSettings
    force: bool = False
    match: Mapping[str, str] = field(default_factory=dict)
    to: tuple[Address | None, ...] = (None,)

    @property
    def modality(self) -> str:
        """Of the scans that its task takes."""
        return self.settings.checked().parameters.takes.modality

    def fits(self, tags: Mapping[str, str]) -> bool:
        """Whether it is for a series."""
        wanted = {"Modality": self.modality, **self.match}
        return all(fnmatchcase(tags.get(key, "").casefold(), value.casefold()) for key, value in wanted.items())


def checked_rule(rule: Rule) -> Rule:
    """Refuse a task that a series alone is not enough for.

    Raises:
        InputError: it needs more, or no scan at all.
    """
    inputs = TASKS[rule.settings.task].inputs
    more = [row.name for row in inputs.named if row.need is REQUIRED]
    more += [name for name in ("mask", "anatomy") if getattr(inputs, name) is REQUIRED]
    if inputs.volume is not REQUIRED or more:
        lacks = f"it also needs {' and '.join(more)}" if more else "it takes no scan"
        raise InputError(f"{rule.settings.task} cannot work on what arrives: {lacks}.", "Choose another task.")
    return rule


def read_rules(path: Path, settings_of: Callable[[Sequence[str]], tuple[RunSettings, bool]]) -> list[Rule]:
    """The rules of a JSON or TOML file.

    Args:
        settings_of: settings and ``force`` from words of the command line.

    Raises:
        InputError: unreadable, or a rule that makes no sense.
    """
    rows = _content(path).get("rules")
    if not isinstance(rows, list) or not rows:
        raise InputError(f"'{path}' has no rules.", 'Write {"rules": [{"name": "chest", "task": "denoise"}]}.')
    rules = []
    for number, row in enumerate(rows, 1):
        try:
            rules.append(_rule(row, settings_of))
        except InputError as problem:
            raise InputError(f"'{path}', rule {number}: {problem.cause}", problem.remedy) from None
    names = [rule.name for rule in rules]
    if len(set(names)) < len(names):
        raise InputError(f"'{path}' has two rules of one name.", "Give each a name of its own.")
    return rules


def _content(path: Path) -> dict[str, Any]:
    remedy = "Give a .json or .toml file as docs/how-to/listen.md shows it."
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("it is too large")
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".toml":
            if sys.version_info < (3, 11):
                raise InputError("TOML needs Python 3.11 or newer.", "Write the rules as JSON.")
            import tomllib

            return tomllib.loads(text)
        content = parse_json(text)
    except OSError as problem:
        raise InputError(f"'{path}' cannot be read: {problem.strerror}.", remedy) from None
    except ValueError as problem:
        raise InputError(f"'{path}' cannot be read ({problem}).", remedy) from None
    if not isinstance(content, dict):
        raise InputError(f"'{path}' holds no rules.", remedy)
    return content


def _rule(row: Any, settings_of: Callable[[Sequence[str]], tuple[RunSettings, bool]]) -> Rule:
    if not isinstance(row, dict) or not set(row) <= set(_FIELDS):
        raise InputError(f"It is {row!r:.80}.", f"A rule has {', '.join(_FIELDS)} and nothing else.")
    name, words, match, to = (row.get(key, default) for key, default in zip(_FIELDS, ("", "", {}, SENDER), strict=True))
    words = words.split() if isinstance(words, str) else words
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(f"Its name is {name!r:.80}.", "Use letters, digits, - and _, at most 40.")
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise InputError(f"Its task is {words!r:.80}.", 'Write "task": "denoise --strength 0.8".')
    keys = (*TAGS, "caller")
    if not isinstance(match, dict) or not all(k in keys and isinstance(v, str) for k, v in match.items()):
        raise InputError(f"It matches {match!r:.80}.", f"Give texts for {', '.join(keys)}.")
    targets = [to] if isinstance(to, str) else to
    if not isinstance(targets, list) or not targets or not all(isinstance(target, str) for target in targets):
        raise InputError(f"Its results go to {to!r:.80}.", f'Give addresses, or "{SENDER}".')
    settings, force = settings_of(words)
    return checked_rule(Rule(name, settings, force, match, targets_of(targets)))


def targets_of(texts: Sequence[str]) -> tuple[Address | None, ...]:
    """Targets of results, from addresses and the word ``sender``.

    Raises:
        InputError: something else.
    """
    return tuple(None if text == SENDER else parse_target(text) for text in dict.fromkeys(texts))
