"""A department for tests: scanners that send, archives that take, and a node between them."""

from __future__ import annotations

import contextlib
import queue
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from MedDiffFMLib.cli.listen import task_settings
from MedDiffFMLib.core.progress import CancelToken
from MedDiffFMLib.node.arrivals import Patience
from MedDiffFMLib.node.peers import parse_caller
from MedDiffFMLib.node.rules import Rule, targets_of
from MedDiffFMLib.node.service import Node, NodeSettings
from MedDiffFMLib.runner.load import load
from Testing.unit.imaging.test_dicom import image, uid_of

ROOT = Path(__file__).resolve().parents[3]
TASK = ("radiograph", "--pixels", "16", "--device", "cpu", "--threads", "1")
"""A task that needs no model and takes a moment."""
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
OURS, SCANNER = "MEDDIFFFM", "SCANNER"
WAIT = 60.0


def ct_series(folder: Path, number: int = 0, slices: int = 8, **changes: object) -> list[Path]:
    """A small series of a patient of its own: a body in air, 32 x 32 voxels of 10 mm."""
    details = {
        "StudyInstanceUID": f"1.2.826.{number}.1", "FrameOfReferenceUID": f"1.2.826.{number}.2",
        "PatientID": f"P{number:05d}", "PatientName": f"Secret^Name{number}", "SeriesDescription": f"Thorax {number}",
        "StudyDate": "20260102", "StudyID": "1", "PixelSpacing": [10.0, 10.0], "SliceThickness": 10.0,
    }  # fmt: skip
    folder.mkdir()
    rows, columns = np.mgrid[-1:1:32j, -1:1:32j]
    pixels = np.where((rows / 0.6) ** 2 + (columns / 0.8) ** 2 < 1, 1024 + 40, 24).astype(np.uint16)
    series, files = uid_of("node", number), []
    for k in range(slices):
        files.append(folder / f"{k:03d}.dcm")
        pixels[16, 16] += 1  # no image is a copy of another
        made = image(pixels, (-160.0, -160.0, 10.0 * k), series, **{**details, "InstanceNumber": k + 1, **changes})
        made.save_as(files[-1], enforce_file_format=True)
    return files


def send(files: Sequence[Path], port: int, caller: str = SCANNER, called: str = OURS, **options: Any) -> list[int]:
    """C-STORE of files over one connection; the statuses, none where it was refused."""
    from pynetdicom import AE

    entity = AE(ae_title=caller)
    entity.add_requested_context(CT_IMAGE)
    link = entity.associate("127.0.0.1", port, ae_title=called, **options)
    if not link.is_established:
        return []
    statuses = [int(link.send_c_store(file).get("Status", -1)) for file in files]
    link.release()
    return statuses


class Archive:
    """Receiver that takes results and remembers them.

    Attributes:
        port: where.
        arrived: objects by UID, with how often each came.
        datasets: objects by UID.
        answers: statuses for the next objects, before it takes them all.
    """

    def __init__(self) -> None:
        self.port = 0
        self.arrived: Counter[str] = Counter()
        self.datasets: dict[str, Any] = {}
        self.answers: list[int] = []

    @contextlib.contextmanager
    def open(self, title: str = "ARCHIVE", port: int = 0, tls: Any = None) -> Iterator[Archive]:
        from pynetdicom import AE, AllStoragePresentationContexts, evt

        entity = AE(ae_title=title)
        entity.supported_contexts = AllStoragePresentationContexts
        server = entity.start_server(
            ("127.0.0.1", port), block=False, ssl_context=tls, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        assert server is not None
        self.port = server.server_address[1]
        try:
            yield self
        finally:
            server.shutdown()

    def _store(self, event: Any) -> int:
        if self.answers:
            return self.answers.pop(0)
        dataset = event.dataset
        self.arrived[str(dataset.SOPInstanceUID)] += 1
        self.datasets[str(dataset.SOPInstanceUID)] = dataset
        return 0


class Watched:
    """A node that runs in this process, and what it says.

    Attributes:
        port: where it listens.
        said: every event so far, with its fields.
    """

    def __init__(self) -> None:
        self.port = 0
        self.said: list[tuple[str, dict[str, Any]]] = []
        self._events: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()

    def told(self, event: str, fields: dict[str, Any]) -> None:
        self.said.append((event, fields))
        self._events.put((event, fields))

    def until(self, event: str, times: int = 1) -> dict[str, Any]:
        """Wait for an event that was not waited for yet; gives its fields."""
        fields: dict[str, Any] = {}
        while times:
            try:
                name, fields = self._events.get(timeout=WAIT)
            except queue.Empty:
                raise AssertionError(f"no {event!r}: {self.said}") from None
            times -= name == event
        return fields


def node_settings(
    folder: Path, callers: Sequence[str], to: Sequence[str] = ("sender",), **options: Any
) -> NodeSettings:
    """Settings of a node with the quick task, and little patience."""
    settings, force = task_settings(TASK)
    return NodeSettings(
        **{
            "folder": folder,
            "rules": [Rule("xray", settings, force, to=targets_of(to))],
            "callers": [parse_caller(text) for text in callers],
            "bind": "127.0.0.1",
            "port": 0,
            "patience": Patience(quiet=0.1, broken=0.5),
            **options,
        }
    )


@contextlib.contextmanager
def running(settings: NodeSettings) -> Iterator[Watched]:
    """A node in a thread of this process, stopped politely after the block."""
    watched, cancel, failures = Watched(), CancelToken(), []
    ready = threading.Event()
    node = Node(settings, lambda rule: load(rule.settings), watched.told)

    def serve() -> None:
        try:
            node.run(cancel, lambda port: (setattr(watched, "port", port), ready.set()))
        except BaseException as problem:
            failures.append(problem)
            ready.set()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert ready.wait(WAIT) and not failures, failures
        yield watched
    finally:
        cancel.cancel()
        thread.join(WAIT)
    assert not failures and not thread.is_alive(), failures


class Child:
    """``meddifffm listen`` in a process of its own.

    Attributes:
        port: where it listens.
    """

    def __init__(self, queue_folder: Path, *words: str, port: int = 0) -> None:
        command = [
            sys.executable, "-m", "MedDiffFMLib", "listen", "--queue", str(queue_folder), "--bind", "127.0.0.1",
            "--port", str(port), *words,
        ]  # fmt: skip
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        self.port = int(self.until(r"listens on port (\d+)"))

    def until(self, pattern: str, times: int = 1) -> str:
        """Read what it says until something was said so often; gives the first group of the last one."""
        assert self.process.stderr is not None
        said = []
        for line in self.process.stderr:
            said.append(line)
            found = re.search(pattern, line)
            times -= found is not None
            if found and not times:
                return found[1]
        raise AssertionError("".join(said))

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.kill()
        self.process.communicate(timeout=WAIT)
