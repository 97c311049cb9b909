"""Jobs: series that are whole, their results, and what was sent of them; all of it on the disk.

``jobs/<time>-<key>/`` has ``series.json``, ``images/``, and for each rule ``results/<rule>/`` (which appears whole) or
``failed/<rule>.json``. A result's ``sent.jsonl`` has a line for each object that somebody has taken. Objects are made
once and keep their UIDs, so what is sent again after a crash is the same object.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.safe_load import parse_json, read_json
from .arrivals import IMAGES, Arrival, image_names, read_arrival
from .audit import now
from .durable import flush_folder, write_record

RESULTS, FAILED, COMPUTED, SENT, ATTEMPTS = "results", "failed", "computed.json", "sent.jsonl", "attempts.json"


@dataclass(frozen=True)
class Result:
    """Result of one rule for one series.

    Attributes:
        folder: of it.
        objects: DICOM files, by their way from the folder.
        targets: addresses that they go to.
        since: when they were made, seconds since 1970.
    """

    folder: Path
    objects: tuple[str, ...]
    targets: tuple[str, ...]
    since: float

    @property
    def rule(self) -> str:
        return self.folder.name

    @property
    def job(self) -> Path:
        return self.folder.parent.parent

    def left(self, target: str) -> list[Path]:
        """Objects that a target has not taken yet; none of a job that was finished meanwhile."""
        sent = self._sent()
        if not sent and not self.folder.is_dir():
            return []
        return [self.folder / name for name in self.objects if (target, name) not in sent]

    def open_targets(self) -> list[str]:
        """Targets that have not taken everything."""
        return [target for target in self.targets if self.left(target)]

    def add_sent(self, target: str, file: Path) -> None:
        """Note that a target has taken an object."""
        line = json.dumps([target, file.relative_to(self.folder).as_posix()])
        with (self.folder / SENT).open("a", encoding="utf-8") as stream:
            stream.write(f"\n{line}\n")  # a line that was torn before takes no other with it
            stream.flush()
            os.fsync(stream.fileno())

    def _sent(self) -> set[tuple[str, str]]:
        try:
            lines = (self.folder / SENT).read_text(encoding="utf-8").splitlines()
        except OSError:
            return set()
        pairs = set()
        for line in lines:
            with contextlib.suppress(ValueError):  # the power failed while it was written: it is sent again
                target, name = parse_json(line)
                pairs.add((target, name))
        return pairs


class Job:
    """The folder of one series."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def images(self) -> Path:
        return self.folder / IMAGES

    def arrival(self) -> Arrival:
        """As :func:`read_arrival`."""
        return read_arrival(self.folder)

    def results(self) -> list[Result]:
        """Those that are there, whole."""
        found = []
        for record in sorted((self.folder / RESULTS).glob(f"*/{COMPUTED}")):
            values = read_json(record)
            found.append(Result(record.parent, tuple(values["objects"]), tuple(values["targets"]), values["since"]))
        return found

    def failures(self) -> dict[str, str]:
        """Rule -> why there is no result."""
        return {path.stem: str(read_json(path)["reason"]) for path in sorted((self.folder / FAILED).glob("*.json"))}

    def open_rules(self, names: Sequence[str]) -> list[str]:
        """Rules without an outcome."""
        known = {result.rule for result in self.results()} | self.failures().keys()
        return [name for name in names if name not in known]

    def fail(self, rule: str, reason: str) -> None:
        """Note that a rule has no result."""
        (self.folder / FAILED).mkdir(exist_ok=True)
        write_record(self.folder / FAILED / f"{rule}.json", {"reason": reason, "time": now()})

    def count_attempt(self, rule: str, step: int = 1) -> int:
        """Count the beginnings of a rule without an end: a program that dies on a series must not do so for ever."""
        path = self.folder / ATTEMPTS
        attempts: dict[str, Any] = read_json(path) if path.exists() else {}
        attempts[rule] = int(attempts.get(rule, 0)) + step
        write_record(path, attempts)
        return attempts[rule]

    def publish(self, staging: Path, rule: str, objects: Sequence[Path], targets: Sequence[str]) -> Result:
        """Show a finished result."""
        ways, since = [file.relative_to(staging).as_posix() for file in objects], time.time()
        write_record(staging / COMPUTED, {"objects": ways, "targets": list(targets), "since": since})
        target = self.folder / RESULTS / rule
        os.rename(staging, target)
        flush_folder(target.parent)
        return Result(target, tuple(ways), tuple(targets), since)


class DoneSeries:
    """Series that are done, by key, with the images that were worked on, so that no image is worked on twice.

    Args:
        folder: one record for each key.
        days: that a record is kept.
    """

    def __init__(self, folder: Path, days: float) -> None:
        self._folder = folder
        self._seconds = days * 86400
        folder.mkdir(parents=True, exist_ok=True)

    def forget_old(self) -> None:
        """Remove what is older than the days."""
        for path in self._folder.glob("*.json"):
            if time.time() - path.stat().st_mtime > self._seconds:
                path.unlink(missing_ok=True)

    def sets(self, key: str) -> list[set[str]]:
        """Images of each time that a series was done."""
        return [set(row["images"]) for row in self._rows(key)]

    def has(self, job: Job) -> bool:
        """Whether a job was finished; only its folder is left, then."""
        return any(row["job"] == job.name for row in self._rows(job.arrival().key))

    def add(self, job: Job) -> None:
        """Note that a job is finished."""
        key = job.arrival().key
        row = {"job": job.name, "images": sorted(image_names(job.folder)), "time": now()}
        write_record(self._folder / f"{key}.json", [*self._rows(key), row])

    def _rows(self, key: str) -> list[dict[str, Any]]:
        path = self._folder / f"{key}.json"
        try:
            return read_json(path) if path.exists() else []
        except ValueError:
            return []

    def __len__(self) -> int:
        return sum(1 for _ in self._folder.glob("*.json"))


def job_name(key: str) -> str:
    """Name of a new job: in order of time."""
    return f"{time.time_ns() // 1000:017d}-{key}"
