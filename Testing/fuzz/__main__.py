"""``python -m Testing.fuzz --inputs 100000 --seed 1``: attack, count, and name every failure by its number.

One process at a time reads; it is watched, and started anew after a crash or a hang. A failure is seen again with
``--only NUMBER`` and the same seed and targets.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SILENCE_SECONDS = 900
"""Wall-clock time without an answer that counts as a hang: far above CPU_SECONDS, for busy computers."""


@dataclass
class Tally:
    """What came of all inputs.

    Attributes:
        counts: inputs by target and verdict.
        failures: one record each.
        seconds: wall-clock time, processes' starts included.
        left: names of files and folders that were left in the temporary folder.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    left: list[str] = field(default_factory=list)

    @property
    def inputs(self) -> int:
        return sum(self.counts.values())


def fuzz(inputs: int, seed: int, *, seconds: float = 3600.0, targets: list[str] | None = None, first: int = 0) -> Tally:
    """Attack with the inputs from number ``first`` on."""
    tally, begin = Tally(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        scratch = Path(folder)
        (scratch / "tmp").mkdir()
        number = first
        while number < first + inputs and (left := seconds - (time.monotonic() - begin)) > 0:
            told = {
                "seed": seed,
                "first": number,
                "last": first + inputs,
                "seconds": left,
                "targets": targets or [],
                "scratch": folder,
            }
            number = _one_process(told, number, tally)
            if number < 0:
                break
        tally.left = sorted(path.name for path in (scratch / "tmp").iterdir())
    tally.seconds = time.monotonic() - begin
    return tally


def _one_process(told: dict[str, Any], number: int, tally: Tally) -> int:
    """Run one attacking process to its end; gives the number to go on with, -1 where all is done."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(Path(told["scratch"]) / "tmp"),
        "TORCHINDUCTOR_CACHE_DIR": str(Path(told["scratch"]) / "torch"),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [sys.executable, "-W", "ignore", "-m", "Testing.fuzz.attack", json.dumps(told)]
    started, how = False, ""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment, cwd=ROOT, bufsize=0)
        try:
            for record in _records(process):
                started = True
                if record:
                    number = record["number"] + 1
                    _count(record, tally)
            if process.wait():
                how = f"the process ended with code {process.returncode}"
        except TimeoutError:
            how = f"no answer within {SILENCE_SECONDS} s"
            process.send_signal(signal.SIGABRT)  # faulthandler then writes where it is
        finally:
            _end(process)
        errors.seek(0)
        words = errors.read().decode("utf-8", "replace")
    if not how:
        return -1
    if not started:
        raise RuntimeError(f"the attacking process cannot start: {words[-2000:]}")
    _count({"number": number, "target": "?", "verdict": "FAILED", "reason": f"{how}: {words[-1500:]}"}, tally)
    return number + 1


def _count(record: dict[str, Any], tally: Tally) -> None:
    tally.counts[record["target"], record["verdict"]] += 1
    if record["verdict"] == "FAILED":
        tally.failures.append(record)


def _end(process: subprocess.Popen) -> None:
    """Let it end by itself for a moment."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _records(process: subprocess.Popen) -> Iterator[dict[str, Any]]:
    """The lines of the process; raises TimeoutError where it falls silent."""
    assert process.stdout is not None
    rest = b""
    while select.select([process.stdout], [], [], SILENCE_SECONDS)[0]:
        data = os.read(process.stdout.fileno(), 1 << 16)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield json.loads(line)
    raise TimeoutError


def table(tally: Tally) -> str:
    """Markdown: a row a target, a column a verdict."""
    targets = sorted({target for target, _ in tally.counts})
    verdicts = sorted({verdict for _, verdict in tally.counts})
    lines = [f"| target | {' | '.join(verdicts)} | all |", "|---" * (len(verdicts) + 2) + "|"]
    for target in targets:
        row = [tally.counts[target, verdict] for verdict in verdicts]
        lines.append(f"| {target} | {' | '.join(map(str, row))} | {sum(row)} |")
    total = [sum(tally.counts[target, verdict] for target in targets) for verdict in verdicts]
    return "\n".join([*lines, f"| all | {' | '.join(map(str, total))} | {sum(total)} |"])


def main() -> int:
    """Exit code 1 where anything failed."""
    parser = argparse.ArgumentParser(prog="python -m Testing.fuzz", description="Hostile input for every reader.")
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3600.0, help="ends earlier than all inputs (default: 3600)")
    parser.add_argument("--target", action="append", default=[], metavar="NAME", help="this reader only; repeatable")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this input only")
    parser.add_argument("--failures", type=Path, metavar="JSON", help="write the failures to this file")
    args = parser.parse_args()
    inputs, first = (args.inputs, 0) if args.only is None else (1, args.only)
    tally = fuzz(inputs, args.seed, seconds=args.seconds, targets=args.target, first=first)
    for failure in tally.failures[:50]:
        print(f"{failure['number']} {failure['target']}: {failure['reason']}")
    print(f"\n{tally.inputs} inputs in {tally.seconds:.0f} s, seed {args.seed}; {len(tally.failures)} failures")
    print(f"left in the temporary folder: {', '.join(tally.left) or 'nothing'}\n\n{table(tally)}")
    if args.failures is not None:
        args.failures.write_text(json.dumps(tally.failures, indent=1))
    return 1 if tally.failures or tally.left else 0


if __name__ == "__main__":
    sys.exit(main())
