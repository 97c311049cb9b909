"""Answers of readers, kept after each one, and what they say about a kit."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..core.csv_files import write_csv
from ..core.errors import InputError
from .kit import LETTERS, Kit, Pair

COLUMNS = ("kit", "reader", "pair", "choice", "side", "seconds")
SIDES = ("left", "right")


@dataclass(frozen=True)
class Answer:
    """One choice of one reader.

    Attributes:
        kit: id of the kit.
        choice: "a" or "b", the file that was taken for the real one.
        side: "left" or "right", where it was shown.
        seconds: from the sight of the pair to the choice; of the last sitting, where the reading was interrupted.
    """

    kit: str
    reader: str
    pair: int
    choice: str
    side: str
    seconds: float


def answers_path(folder: str | Path, reader: str) -> Path:
    """File of a reader's answers in the kit's folder.

    Raises:
        InputError: a name without a letter or digit.
    """
    name = re.sub(r"[^\w-]+", "_", reader.strip()).strip("_")
    if not name:
        raise InputError("A reader needs a name.", "Write initials or a number.")
    return Path(folder) / f"answers-{name}.csv"


class Reading:
    """A reader's way through a kit: what is next, and what was answered.

    Args:
        reader: name or number; the same one goes on where the reading was interrupted.

    Raises:
        InputError: the file of answers is of another kit or reader, or damaged.
    """

    def __init__(self, kit: Kit, reader: str) -> None:
        self.kit, self.reader = kit, reader.strip()
        self.path = answers_path(kit.folder, reader)
        self.answers = read_answers([self.path]) if self.path.exists() else []
        for answer in self.answers:
            if (answer.kit, answer.reader) != (kit.id, self.reader):
                raise InputError(
                    f"'{self.path.name}' has answers of {answer.reader} to another reading.", "Choose another name."
                )
        answered = {answer.pair for answer in self.answers}
        self._left = [shown for shown in kit.order(self.reader) if shown[0].pair not in answered]

    @property
    def done(self) -> int:
        """How many pairs are answered."""
        return len(self.answers)

    @property
    def next(self) -> tuple[Pair, tuple[str, str]] | None:
        """The pair to be shown and the letters of left and right; None at the end."""
        return self._left[0] if self._left else None

    def choose(self, side: str, seconds: float) -> Answer:
        """The reader takes what is on a side for real; it is on the disk when this returns.

        Raises:
            OutputError: it cannot be written; the pair is not answered then.
        """
        pair, letters = self._left[0]
        answer = Answer(self.kit.id, self.reader, pair.pair, letters[SIDES.index(side)], side, round(float(seconds), 1))
        write_csv(map(asdict, [*self.answers, answer]), COLUMNS, self.path, overwrite=True)
        self.answers.append(answer)
        del self._left[0]
        return answer


def read_answers(paths: Iterable[str | Path]) -> list[Answer]:
    """The answers of some files.

    Raises:
        InputError: a file that is none, or two answers of a reader to one pair.
    """
    found: dict[tuple[str, str, int], Answer] = {}
    for path in paths:
        try:
            with open(path, newline="", encoding="utf-8-sig") as stream:
                rows = [_answer(row) for row in csv.DictReader(stream)]
        except (OSError, KeyError, TypeError, ValueError, csv.Error) as problem:
            raise InputError(f"'{path}' has no answers of a reading: {problem}.", "Give answers-NAME.csv.") from problem
        for answer in rows:
            if found.setdefault((answer.kit, answer.reader, answer.pair), answer) is not answer:
                raise InputError(f"{answer.reader} answered pair {answer.pair} twice.", "Give each file once.")
    return list(found.values())


def _answer(row: dict[str, str]) -> Answer:
    reader = row["reader"]
    if reader.startswith("'"):  # as write_csv keeps spreadsheets from computing
        reader = reader[1:]
    answer = Answer(row["kit"], reader, int(row["pair"]), row["choice"], row["side"], float(row["seconds"]))
    if answer.choice not in LETTERS or answer.side not in SIDES:
        raise ValueError(f"no choice {answer.choice!r}")
    return answer


@dataclass(frozen=True)
class Summary:
    """Result of a reading.

    Attributes:
        reader: empty for all together.
        right: answers that found the real one, of
        answers.
        low, high: 95 % interval of the share that is right (Clopper and Pearson 1934), exact for one reader; the
            answers of several to the same pairs hang together, so that theirs is too narrow.
        p: probability of a result at least as far from half by guessing, two-sided.
        left: answers that chose the left one: far from half, the reader has a side.
        seconds: median of an answer.
    """

    reader: str
    right: int
    answers: int
    low: float
    high: float
    p: float
    left: int
    seconds: float

    @property
    def share(self) -> float:
        """Share that is right; 0.5 is guessing."""
        return self.right / self.answers

    def sentence(self) -> str:
        """The result in words."""
        return (
            f"{self.reader or 'All readers'}: {self.right} of {self.answers} right ({self.share:.0%}, 95 % interval "
            f"{self.low:.0%} to {self.high:.0%}; guessing is 50 %, p = {self.p:.2g}), "
            f"{self.seconds:.0f} s an answer, {self.left} times left."
        )


def summarize(answers: Sequence[Answer], kit: str, real: dict[int, str]) -> list[Summary]:
    """Result of each reader, and of all together where there are several.

    Args:
        kit, real: what :func:`.kit.read_key` gives.

    Raises:
        InputError: no answers, or they belong to another kit.
    """
    for answer in answers:
        if answer.kit != kit or answer.pair not in real:
            raise InputError(f"The answers of {answer.reader} belong to another kit.", "Give the key of their kit.")
    if not answers:
        raise InputError("There are no answers.", "Give the files answers-NAME.csv.")
    readers = sorted({answer.reader for answer in answers})
    groups = [(reader, [answer for answer in answers if answer.reader == reader]) for reader in readers]
    if len(readers) > 1:
        groups.append(("", list(answers)))
    return [_summary(reader, group, real) for reader, group in groups]


def _summary(reader: str, answers: Sequence[Answer], real: dict[int, str]) -> Summary:
    right = sum(answer.choice == real[answer.pair] for answer in answers)
    low, high = exact_interval(right, len(answers))
    seconds = sorted(answer.seconds for answer in answers)
    middle = (seconds[(len(seconds) - 1) // 2] + seconds[len(seconds) // 2]) / 2
    left = sum(answer.side == "left" for answer in answers)
    return Summary(reader, right, len(answers), low, high, guessing(right, len(answers)), left, middle)


def exact_interval(right: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of Clopper and Pearson for a share, by halving: those shares at which neither tail of the binomial
    distribution is below half of what is left of ``confidence``."""
    tail = (1 - confidence) / 2
    low = 0.0 if right == 0 else _share_where(lambda share: 1 - _at_most(right - 1, count, share) < tail)
    high = 1.0 if right == count else _share_where(lambda share: _at_most(right, count, share) >= tail)
    return low, high


def guessing(right: int, count: int) -> float:
    """Two-sided probability of a result at least as far from half, if every answer is a guess."""
    return min(1.0, 2 * _at_most(min(right, count - right), count, 0.5))


def _at_most(most: int, count: int, share: float) -> float:
    """Probability of at most so many successes."""
    return math.fsum(math.comb(count, n) * share**n * (1 - share) ** (count - n) for n in range(most + 1))


def _share_where(below: Callable[[float], bool]) -> float:
    """The share up to which ``below`` holds, within 1e-9."""
    low, high = 0.0, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2
