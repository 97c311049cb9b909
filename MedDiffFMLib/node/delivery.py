"""Delivery of results in a thread of its own: each object to each target until it is taken, one target's failure being
nobody else's delay."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..core.errors import Cancelled, MedDiffFMError, expected, log_defect
from ..dicom.sending import send
from ..dicom.sources.address import parse_target
from .audit import Audit
from .jobs import Result

_FIRST_SECONDS, _LONGEST_SECONDS = 5.0, 600.0


@dataclasses.dataclass
class Trouble:
    """A target that did not take something.

    Attributes:
        reason: in words.
        tries: in a row.
        again: when to try again, by the clock of ``time.monotonic``.
    """

    reason: str
    tries: int
    again: float


class Delivery:
    """Sender of results.

    Args:
        title: AE title that we call with.
        tls: an ``ssl.SSLContext`` for ``pacs+tls://``.
        on_done: told of a result that every target has taken.
        on_given_up: told of one that a target did not take for too long, with the reason.
        hours: after which one is given up.
    """

    def __init__(
        self,
        title: str,
        tls: Any,
        audit: Audit,
        on_done: Callable[[Result], None],
        on_given_up: Callable[[Result, str], None],
        hours: float,
    ) -> None:
        self._title, self._tls, self._audit = title, tls, audit
        self._on_done, self._on_given_up, self._seconds = on_done, on_given_up, hours * 3600
        self._waiting: list[Result] = []
        self._troubles: dict[str, Trouble] = {}
        self._wake, self._stop = threading.Condition(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)

    def __enter__(self) -> Delivery:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        with self._wake:
            self._wake.notify()
        self._thread.join()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def troubles(self) -> dict[str, str]:
        """Target -> why it does not take anything at present."""
        return {target: trouble.reason for target, trouble in list(self._troubles.items())}

    def add(self, result: Result) -> None:
        """Send a result, now or as soon as it can be."""
        with self._wake:
            self._waiting.append(result)
            self._wake.notify()

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._wake:
                waiting = list(self._waiting)
            for result in waiting:
                if self._stop.is_set():
                    return
                self._attend(result)
            with self._wake:
                if not self._stop.is_set() and all(result in waiting for result in self._waiting):
                    self._wake.wait(self._pause() if self._waiting else None)

    def _pause(self) -> float:
        """Seconds until some target is worth a try."""
        nexts = [trouble.again for trouble in self._troubles.values()]
        return max(0.05, min(nexts, default=time.monotonic() + 1.0) - time.monotonic())

    def _attend(self, result: Result) -> None:
        """Try every target of a result that is due."""
        for target in result.open_targets():
            trouble = self._troubles.get(target)
            if trouble is None or trouble.again <= time.monotonic():
                self._try(result, target)
            if self._stop.is_set():
                return
        left = result.open_targets()
        if not left:
            self._drop(result)
            self._on_done(result)
        elif time.time() - result.since > self._seconds:
            self._drop(result)
            reason = self._troubles[left[0]].reason if left[0] in self._troubles else "no reason known"
            self._on_given_up(result, f"{left[0]} did not take the results: {reason}")

    def _drop(self, result: Result) -> None:
        with self._wake:
            self._waiting.remove(result)

    def _try(self, result: Result, target: str) -> None:
        count = 0

        def stored(file: Path) -> None:
            nonlocal count
            result.add_sent(target, file)
            count += 1
            if self._stop.is_set():
                raise Cancelled()

        try:
            address = dataclasses.replace(parse_target(target), own_title=self._title)
            send(address, result.left(target), stored, self._tls)
        except Cancelled:
            return
        except Exception as problem:  # nothing that a target does may stop the node
            failure = expected(problem) or MedDiffFMError(f"Unexpected failure: {log_defect(problem)}.")
            self._note(target, failure.cause)
            return
        finally:
            if count:
                self._audit.write("sent", job=result.job.name, rule=result.rule, target=target, objects=count)
        self._troubles.pop(target, None)

    def _note(self, target: str, reason: str) -> None:
        """Wait longer each time; the log hears of the first failure in a row only."""
        tries = self._troubles[target].tries + 1 if target in self._troubles else 1
        pause = min(_FIRST_SECONDS * 2 ** (tries - 1), _LONGEST_SECONDS)
        self._troubles[target] = Trouble(reason, tries, time.monotonic() + pause)
        if tries == 1:
            self._audit.write("not sent", target=target, reason=reason)
