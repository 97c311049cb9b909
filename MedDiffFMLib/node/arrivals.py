"""Series on their way in: each image on the disk before the sender hears that it was taken.

A series is whole when its sender released the connection and nothing came for some seconds, when it has as many images
as were said to make one, or when its sender stays connected and silent for long. Where the connection broke off, only
the sender knows what is missing: then the series waits to be sent again, and is kept aside if nobody does.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..core.atomic_files import sweep
from ..core.safe_load import read_json
from .audit import now
from .durable import write_file, write_record

ARRIVAL = "series.json"
IMAGES = "images"


@dataclass
class Arrival:
    """Record of a series.

    Attributes:
        key: tells series of one caller apart; name of its folder.
        caller, address: AE title and number of who sent it.
        study, series: UIDs.
        tags: what rules ask for.
        patient: ID and name; only where the audit log is to have them.
        began: when its first image came.
        released: whether the sender said that this was all.
    """

    key: str
    caller: str
    address: str
    study: str
    series: str
    tags: dict[str, str]
    patient: dict[str, str] = field(default_factory=dict)
    began: str = ""
    released: bool = False

    def said(self) -> dict[str, Any]:
        """For the audit log."""
        return {"caller": self.caller, "address": self.address, "study": self.study, "series": self.series} | (
            {"patient": self.patient} if self.patient else {}
        )


def read_arrival(folder: Path) -> Arrival:
    """The record of a series.

    Raises:
        OSError, ValueError, TypeError: it is not there or not whole.
    """
    return Arrival(**read_json(folder / ARRIVAL))


def key_of(caller: str, series: str) -> str:
    """Name of the folder of a series."""
    return hashlib.sha256(json.dumps([caller, series]).encode()).hexdigest()[:20]


def image_name(instance: str) -> str:
    """Name of the file of an image: never one that somebody else chose."""
    return f"{hashlib.sha256(instance.encode()).hexdigest()[:24]}.dcm"


def image_names(folder: Path) -> set[str]:
    """Files of the images of a series."""
    return {path.name for path in (folder / IMAGES).glob("*.dcm")}


@dataclass
class _Open:
    """A series that is arriving."""

    arrival: Arrival
    names: set[str]
    touched: float
    links: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Patience:
    """Time after which a series counts as whole.

    Attributes:
        quiet: seconds without an image after the connection was released.
        connected: seconds without one while it is kept open.
        broken: seconds to wait for a series whose connection broke off to be sent again.
        images: number at which it is whole at once; 0 for none.
    """

    quiet: float = 10.0
    connected: float = 60.0
    broken: float = 600.0
    images: int = 0


class Arrivals:
    """The folder of series that are arriving.

    Args:
        folder: one folder for each.
        patience: when one is whole.
        clock: seconds, never going back.

    Attributes:
        lock: held by whoever moves one of the folders.
        damaged: folders with images of which nobody knows what they are.
    """

    def __init__(self, folder: Path, patience: Patience, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self._patience = patience
        self._clock = clock
        self._open: dict[str, _Open] = {}
        self.damaged: list[Path] = []
        self._recover()

    def _recover(self) -> None:
        """Take up what an earlier process left."""
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep(self.folder)
        for folder in sorted(path for path in self.folder.iterdir() if path.is_dir()):
            sweep(folder / IMAGES)
            sweep(folder)
            try:
                arrival = read_arrival(folder)
            except (OSError, ValueError, TypeError):
                if image_names(folder):  # else killed before its first image was taken
                    self.damaged.append(folder)
                continue
            self._open[folder.name] = _Open(arrival, image_names(folder), self._clock())

    def __len__(self) -> int:
        return len(self._open)

    def count(self, key: str) -> int:
        """Images of a series that are there."""
        return len(self._open[key].names) if key in self._open else 0

    def take(self, link: int, arrival: Arrival, instance: str, content: bytes) -> bool:
        """Put an image on the disk.

        Args:
            link: connection that it came over.
            arrival: of its series, as this image tells it.
            instance: its UID.

        Returns:
            True for a new one, False for one that is there already, with the same content.

        Raises:
            ValueError: it is there with another content.
            OSError: the disk refuses.
        """
        name = image_name(instance)
        with self.lock:
            known = self._open.get(arrival.key)
            place = self.folder / arrival.key / IMAGES
            if known is None:
                place.mkdir(parents=True, exist_ok=True)
                arrival.began = now()
                write_record(place.parent / ARRIVAL, asdict(arrival))
                known = self._open[arrival.key] = _Open(arrival, set(), self._clock())
            elif known.arrival.released:
                known.arrival.released = False
                write_record(place.parent / ARRIVAL, asdict(known.arrival))
            known.links.add(link)
            known.touched = self._clock()
            if name in known.names:
                if (place / name).read_bytes() != content:
                    raise ValueError("the same UID with another content")
                return False
            write_file(place / name, content)
            known.names.add(name)
            return True

    def released(self, link: int) -> None:
        """The sender said that this was all; written down before it hears that we know."""
        with self.lock:
            for key, known in self._open.items():
                if link in known.links:
                    known.arrival.released = True
                    write_record(self.folder / key / ARRIVAL, asdict(known.arrival))

    def closed(self, link: int) -> None:
        """The connection is gone."""
        with self.lock:
            for known in self._open.values():
                known.links.discard(link)

    def due(self) -> dict[str, str]:
        """Series that need wait no longer: key -> why it is not whole, empty where it is."""
        with self.lock:
            reasons = {key: self._verdict(known) for key, known in self._open.items()}
        return {key: reason for key, reason in reasons.items() if reason is not None}

    def _verdict(self, known: _Open) -> str | None:
        silent, patience = self._clock() - known.touched, self._patience
        if patience.images and len(known.names) >= patience.images:
            return ""
        if known.arrival.released and not known.links:
            return "" if silent >= patience.quiet else None
        if known.links:
            return "" if silent >= patience.connected else None
        if silent < patience.broken:
            return None
        return f"the connection broke off after {len(known.names)} images, and nobody sent the series again"

    def arrival(self, key: str) -> Arrival:
        """Record of a series."""
        return self._open[key].arrival

    def let_go(self, key: str) -> None:
        """Forget a series whose folder the caller has moved, holding the lock."""
        del self._open[key]


def as_tags(dataset: Any, keywords: tuple[str, ...], caller: str) -> Mapping[str, str]:
    """Tags that rules ask for, as text."""
    values = {key: dataset.get(key) for key in keywords}
    texts = {
        key: "\\".join(map(str, value)) if isinstance(value, (list, tuple)) or hasattr(value, "append") else str(value)
        for key, value in values.items()
        if value is not None
    }
    return {**{key: text.strip()[:256] for key, text in texts.items()}, "caller": caller}
