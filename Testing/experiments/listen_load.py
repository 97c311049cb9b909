"""Load on a node: many small series from three scanners, kill -9 twice on the way; what was lost, and what came twice.

``PYTHONPATH=. python Testing/experiments/listen_load.py --series 500`` prints figures; exit code 1 when anything was
lost or made twice.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from Testing.unit.dicom.archives import free_ports
from Testing.unit.node.department import CT_IMAGE, OURS, TASK, Archive, Child, ct_series

SCANNERS = ("CT1", "CT2", "CT3")
SLICES = 4


def send_until_taken(files: list[Path], port: int, caller: str) -> int:
    """Send a series again until every image was taken and the connection ended in peace; gives the number of tries."""
    from pynetdicom import AE

    tries = 0
    while True:
        tries += 1
        entity = AE(ae_title=caller)
        entity.add_requested_context(CT_IMAGE)
        link = entity.associate("127.0.0.1", port, ae_title=OURS)
        try:
            if link.is_established:
                statuses = [int(link.send_c_store(file).get("Status", -1)) for file in files]
                link.release()
                if not any(statuses) and link.is_released:
                    return tries
        except RuntimeError:  # the node was killed in between
            pass
        time.sleep(0.5)


class Scanners:
    """Threads that send all series, and how often they had to."""

    def __init__(self, series: list[list[Path]], port: int) -> None:
        self.tries: Counter[int] = Counter()
        self._threads = [
            threading.Thread(target=self._send, args=(series[number :: len(SCANNERS)], port, name), daemon=True)
            for number, name in enumerate(SCANNERS)
        ]
        for thread in self._threads:
            thread.start()

    def _send(self, series: list[list[Path]], port: int, caller: str) -> None:
        for files in series:
            self.tries[send_until_taken(files, port, caller)] += 1

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=500)
    count = parser.parse_args().series
    folder = Path(tempfile.mkdtemp(prefix="listen-load-"))
    queue = folder / "queue"
    series = [ct_series(folder / f"ct{number:04d}", number, SLICES) for number in range(count)]
    (port,) = free_ports(1)
    with Archive().open() as archive:
        callers = [word for name in SCANNERS for word in ("--from", f"{name}@127.0.0.1")]
        words = (*callers, "--to", f"pacs://ARCHIVE@127.0.0.1:{archive.port}", "--wait", "0.5", *TASK)
        start, scanners, begun = time.monotonic(), None, []
        for share in (count // 3, count // 3, 0):
            before = time.monotonic()
            with Child(queue, *words, port=port) as child:
                begun.append(time.monotonic() - before)
                scanners = scanners or Scanners(series, port)
                if share:
                    child.until("(sent):", share)  # and dies in the middle of whatever it does
                    continue
                while len(list(queue.glob("done/*.json"))) < count:
                    child.until("(done):")
                scanners.join()
        seconds = time.monotonic() - start
    assert scanners is not None
    patients = Counter(str(dataset.PatientID) for dataset in archive.datasets.values())
    lost = count - len(patients)
    made_twice = sum(number > 1 for number in patients.values())
    again = sum(number - 1 for number in archive.arrived.values())
    aside = len(list((queue / "aside").iterdir()))
    print(f"series {count}, images {count * SLICES}, kills 2, seconds {seconds:.0f}, starts {begun}")
    print(f"series sent more than once by their scanner: {sum(n for tries, n in scanners.tries.items() if tries > 1)}")
    print(f"lost {lost}, computed twice {made_twice}, objects sent again with the same UID {again}, put aside {aside}")
    return int(bool(lost or made_twice or aside))


if __name__ == "__main__":
    raise SystemExit(main())
