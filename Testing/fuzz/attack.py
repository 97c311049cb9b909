"""The process that reads hostile inputs one after the other, and says after each what came of it.

One line an input: ``{"number": 7, "target": "nrrd", "verdict": "input"}``. The verdict is "read", the kind of a
MedDiffFMError, or "FAILED" with the reason. A process that ends or falls silent is the owner's to explain.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from MedDiffFMLib.core.errors import MedDiffFMError

from .limits import Guard, Hang, Trespass, limit_memory, time_limit
from .lists import CaseList, Datalist, DatasetFolder, Prepared, Report
from .messages import Arrays, ClientMessages, ServerMessages
from .target import Files, Target
from .texts import Texts
from .volumes import Dicom, Nifti, Nrrd
from .weights import Catalogue, ControlFile, Weights

TARGETS: tuple[type[Target], ...] = (
    Nrrd, Nifti, Dicom, Datalist, DatasetFolder, Prepared, Report, CaseList, Texts, Weights, ControlFile, Catalogue,
    ClientMessages, ServerMessages, Arrays,
)  # fmt: skip


def chosen(names: list[str]) -> list[type[Target]]:
    """The targets of these names; all for none."""
    return [kind for kind in TARGETS if not names or kind.name in names]


def make_input(target: Target, seed: int, number: int) -> Files:
    """The hostile input of a number."""
    return target.make(random.Random(f"{seed} {target.name} {number}"))


def target_of(kinds: list[type[Target]], seed: int, number: int) -> str:
    """Whose turn it is."""
    return random.Random(f"{seed} {number}").choices(kinds, [kind.weight for kind in kinds])[0].name


class Attacker:
    """Valid examples in memory, limits set, ready to read.

    Args:
        scratch: folder for everything; the only one that may be written to.
    """

    def __init__(self, kinds: list[type[Target]], scratch: Path, seed: int) -> None:
        logging.getLogger("MedDiffFMLib").setLevel(logging.CRITICAL)
        self.kinds, self.seed, self.scratch = kinds, seed, scratch
        self.targets = {kind.name: kind(scratch / "valid" / kind.name) for kind in kinds}
        self.guard = Guard()

    def warm_up(self) -> None:
        """Import what is imported late, before memory is limited; valid input must be read, whatever the target."""
        for target in self.targets.values():
            for number in range(3):
                self.attack(target.name, make_input(target, self.seed, -1 - number))
        limit_memory()

    def attack(self, name: str, files: Files) -> tuple[str, str]:
        """Verdict and, for a failure, the reason."""
        folder = self.scratch / "input"
        shutil.rmtree(folder, ignore_errors=True)
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        target = self.targets[name]
        try:
            if name == "server":  # a process of its own, which is limited by itself
                target.read(folder)
                return "read", ""
            with time_limit(), self.guard.over(folder, Path(tempfile.gettempdir())):
                target.read(folder)
            return "read", ""
        except MedDiffFMError as problem:
            return _judged(problem)
        except (Exception, Hang, Trespass) as problem:
            target.close()
            return "FAILED", _told(problem)

    def close(self) -> None:
        for target in self.targets.values():
            target.close()


def _judged(problem: MedDiffFMError) -> tuple[str, str]:
    """An expected error is well, unless it hides a blow-up or does not help."""
    behind: BaseException | None = problem
    while behind is not None:
        if isinstance(behind, MemoryError):
            return "FAILED", "memory was allocated for a promise: " + _told(problem)
        behind = behind.__cause__ or behind.__context__
    if not (problem.cause and problem.remedy):
        return "FAILED", "no remedy: " + _told(problem)
    return problem.kind, ""


def _told(problem: BaseException) -> str:
    """Type, text, and the innermost lines of this library that were running."""
    frames = [frame for frame in traceback.extract_tb(problem.__traceback__) if "MedDiffFMLib" in frame.filename]
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[:-4:-1])
    text = " ".join(str(problem).split()).encode("ascii", "backslashreplace").decode()
    return f"{type(problem).__name__}: {text:.300} ({places})"


def attacks(attacker: Attacker, numbers: range, deadline: float) -> Iterator[dict[str, Any]]:
    """One record an input, until the numbers or the time are spent."""
    for number in numbers:
        if time.monotonic() > deadline:
            return
        name = target_of(attacker.kinds, attacker.seed, number)
        verdict, reason = attacker.attack(name, make_input(attacker.targets[name], attacker.seed, number))
        yield {"number": number, "target": name, "verdict": verdict, "reason": reason}


def main() -> None:
    """Arguments: a JSON object with seed, first, last, seconds, targets, scratch."""
    told = json.loads(sys.argv[1])
    faulthandler.enable()
    attacker = Attacker(chosen(told["targets"]), Path(told["scratch"]), told["seed"])
    attacker.warm_up()
    print("{}", flush=True)
    deadline = time.monotonic() + told["seconds"]
    try:
        for record in attacks(attacker, range(told["first"], told["last"]), deadline):
            print(json.dumps(record), flush=True)
    finally:
        attacker.close()


if __name__ == "__main__":
    main()
