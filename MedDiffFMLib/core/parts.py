"""Part of many cases, which one of several processes or computers takes; a claim on each case while it is computed."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .file_lock import locked

T = TypeVar("T")
PART_HELP = "take every N-th case from the I-th on, as one of N processes or computers with the same command and folder"


@dataclass(frozen=True)
class Part:
    """One of several parts.

    Attributes:
        number: from 1 on.
        count: of parts.
    """

    number: int = 1
    count: int = 1

    def of(self, rows: Sequence[T]) -> list[T]:
        """The rows of this part, in their order; all parts together are all rows, and none twice."""
        return list(rows[self.number - 1 :: self.count])

    @property
    def suffix(self) -> str:
        """Of the names of files that each part writes for itself; empty where there is one part."""
        return "" if self.count == 1 else f"_part{self.number}of{self.count}"


WHOLE = Part()


def parse_part(text: str) -> Part:
    """Part from ``I/N``, as a type of argparse."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    part = Part(int(match[1]), int(match[2])) if match else None
    if part is None or not 1 <= part.number <= part.count:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is no part: write 3/8 for the third of eight")
    return part


class Claimed(Exception):
    """Another process computes the case at this moment."""


@contextlib.contextmanager
def claimed(folder: Path, name: str) -> Iterator[None]:
    """Keep other processes from a case while the block runs; a process that dies frees it.

    Raises:
        Claimed: another process has it.
    """
    lock = f".{name}.lock"
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder, lock))
        except BlockingIOError:
            raise Claimed from None
        except OSError:  # a file system without locks: two processes may do a case twice, with the same result
            pass
        try:
            yield
        finally:  # whoever waits for the file that is gone finds the case done
            with contextlib.suppress(OSError):
                (folder / lock).unlink()
