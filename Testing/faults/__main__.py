"""``python -m Testing.faults --faults 200 --seed 1``: inject, judge, give the command again, judge again.

Fault n is drawn from (seed, n): a command, a kind of fault, and its moment. ``--only n`` does one alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from MedDiffFMLib.core.lean_monai import lean_monai
from MedDiffFMLib.runner.report import NOTICE

from . import faults
from .faults import DAMAGING, KINDS, Fault, draw
from .process import Place, Process
from .scenarios import SCENARIOS, Scenario, Workshop, damaged_files

_PRELOAD = (
    "torch", "nrrd", "nibabel", "scipy.ndimage", "scipy.spatial", "scipy.stats", "safetensors.torch",
    "matplotlib.figure", "matplotlib.backends.backend_agg", "MedDiffFMLib.training.fabric",
    "MedDiffFMLib.runner.case", "MedDiffFMLib.training.finetune.run", "MedDiffFMLib.training.finetune.lesion",
    "MedDiffFMLib.tasks.denoise.recipe", "MedDiffFMLib.tasks.generate_lesion.recipe",
    "MedDiffFMLib.inference.sliding_window", "MedDiffFMLib.models.controlnet_file", "MedDiffFMLib.cli",
)  # fmt: skip
MAY_DIE = ("kill -9", "interrupt", "memory limit")
"""Faults after which a process need not explain itself: torch's own libraries crash where memory for them ends."""
SCENARIO_NAMES = [kind.name for kind in SCENARIOS]


@dataclass
class Outcome:
    """What became of one fault.

    Attributes:
        code: how the disturbed command ended; negative for a signal.
        problems: what must not be, in words; empty if all is well.
    """

    number: int
    scenario: str
    kind: str
    detail: str
    code: int | None = None
    message: str = ""
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


class Suite:
    """The workshop, an undisturbed run of each command, and the faults.

    Args:
        folder: for everything.
    """

    def __init__(self, folder: Path, seed: int, scenarios: list[str], kinds: list[str]) -> None:
        import importlib

        import torch

        for name in _PRELOAD:
            importlib.import_module(name)
        lean_monai()
        torch.set_num_threads(1)
        self.folder, self.seed = folder, seed
        self.kinds = kinds or list(KINDS)
        self.shop = Workshop(folder / "shop")
        chosen = [kind(self.shop) for kind in SCENARIOS if not scenarios or kind.name in scenarios]
        self.scenarios = {scenario.name: scenario for scenario in chosen}
        self.wanted: dict[str, dict[str, str]] = {}
        self.usual: dict[str, float] = {}

    def rehearse(self, name: str) -> None:
        """Run a command undisturbed, once: how long it takes and what it gives."""
        if name in self.wanted:
            return
        place, begin = _place(self.folder / f"whole-{name}"), time.monotonic()
        process = Process(self.scenarios[name].work(place, self.shop.model), place, place.output.parent / "logs")
        if process.wait() != 0:
            raise RuntimeError(f"the undisturbed {name} ends with {process.code}: {process.said()[-2000:]}")
        self.usual[name] = time.monotonic() - begin
        self.wanted[name] = self.scenarios[name].results(place)

    def inject(self, number: int) -> Outcome:
        """One fault with all that follows."""
        rng = random.Random(f"{self.seed} {number}")
        choices = list(self.scenarios.values())
        scenario = rng.choices(choices, [choice.share for choice in choices])[0]
        kinds = [kind for kind in self.kinds if scenario.uses_weights or kind not in DAMAGING]
        fault = draw(rng.choice(kinds), rng, scenario.functions)
        self.rehearse(scenario.name)
        outcome = Outcome(number, scenario.name, fault.kind, fault.detail)
        folder, begin = self.folder / f"fault-{number}", time.monotonic()
        try:
            self._disturb(scenario, fault, folder, outcome)
        finally:
            faults.unmount()
        outcome.seconds = time.monotonic() - begin
        if not outcome.problems:
            shutil.rmtree(folder, ignore_errors=True)
        return outcome

    def _disturb(self, scenario: Scenario, fault: Fault, folder: Path, outcome: Outcome) -> None:
        place = fault.place(_place(folder))
        model = self.shop.model
        if fault.damage is not None:
            model = folder / "tiny.safetensors"
            model.write_bytes(fault.damage(self.shop.model.read_bytes()))
        with contextlib.suppress(OSError):  # of names that no file system takes
            place.make()
            scenario.furnish(place)
        fault.armed()
        work = scenario.work(place, model)
        running = [
            Process(work, place, folder / f"logs{n}", [faults.die_with_parent, *fault.before])
            for n in range(fault.twins)
        ]
        fault.during(running[0], self.usual[scenario.name])
        for process in running:
            self._judge(process, fault, outcome)
        outcome.problems += [f"damaged: {name}" for name in damaged_files(folder) if model.name not in name]
        outcome.problems += [f"lost: {name}" for name in scenario.lost(place)]
        fault.after()
        if outcome.kind != "odd names" or outcome.code == 0:
            self._again(scenario, place, folder, outcome)

    def _judge(self, process: Process, fault: Fault, outcome: Outcome) -> None:
        """Exit code, words, orphans."""
        outcome.code = process.wait()
        if outcome.code is None:
            process.kill()
            process.wait()
            outcome.problems.append("it hangs")
        if left := process.relatives():
            outcome.problems.append(f"orphans: {left}")
        said = process.said()
        lines = [line for line in said.splitlines() if line.strip() and line != NOTICE]
        spoken = [line for line in lines if "error:" in line] or [line for line in lines if _helps(line)]
        outcome.message = outcome.message or (spoken or [""])[-1]
        killed = outcome.code is not None and outcome.code < 0 and fault.kind in MAY_DIE
        if "Traceback" in said or "Unexpected failure" in said:
            outcome.problems.append(f"not explained: {said[-1500:]}")
        elif outcome.code not in (0, 130) and not killed and not _helps(outcome.message):
            outcome.problems.append(f"ended with {outcome.code} and no message that helps: {said[-500:]!r}")
        if fault.must_end is not None and outcome.code not in fault.must_end:
            outcome.problems.append(f"ended with {outcome.code}, not {fault.must_end}: {said[-500:]}")

    def _again(self, scenario: Scenario, place: Place, folder: Path, outcome: Outcome) -> None:
        """The same command, undisturbed: it must end as if nothing had happened, and clear up."""
        again = Process(scenario.work(place, self.shop.model), place, folder / "logs-again")
        code = again.wait()
        if code != 0:
            again.kill()
            outcome.problems.append(f"the next run ends with {code}: {again.said()[-1500:]}")
        elif (found := scenario.results(place)) != self.wanted[scenario.name]:
            wanted = self.wanted[scenario.name]
            names = sorted(n for n in {*found, *wanted} if found.get(n) != wanted.get(n))
            outcome.problems.append(f"the next run gives other results: {names}")
        hidden = [path for root in (place.output, place.models) for path in root.rglob(".*")]
        left = sorted({path.name for path in (*hidden, *place.temporary.iterdir())})
        if left:
            outcome.problems.append(f"left behind: {left}")
        outcome.problems += [f"damaged after the next run: {name}" for name in damaged_files(place.output)]


def _place(folder: Path) -> Place:
    return Place(folder / "output", folder / "temporary", folder / "models").make()


def _helps(message: str) -> bool:
    """Cause and remedy: two sentences."""
    text = message.partition("error:")[2] or message
    return text.count(". ") >= 1 and len(text) > 30


def table(outcomes: list[Outcome]) -> str:
    """Markdown: a row a kind of fault, a column a command."""
    counts = Counter((outcome.kind, outcome.scenario) for outcome in outcomes)
    lines = [
        f"| fault | {' | '.join(SCENARIO_NAMES)} | all | done all the same | refused | killed or cancelled |",
        "|---" * (len(SCENARIO_NAMES) + 5) + "|",
    ]
    for kind in [*sorted({outcome.kind for outcome in outcomes}), None]:
        chosen = [outcome for outcome in outcomes if kind in (None, outcome.kind)]
        row = [sum(n for (k, s), n in counts.items() if s == name and kind in (None, k)) for name in SCENARIO_NAMES]
        ends = [
            sum(o.code == 0 for o in chosen),
            sum(o.code in (1, 2, 3) for o in chosen),
            sum(o.code is None or o.code < 0 or o.code == 130 for o in chosen),
        ]
        lines.append(f"| {kind or 'all'} | {' | '.join(map(str, [*row, len(chosen), *ends]))} |")
    return "\n".join(lines)


def run(args: argparse.Namespace) -> list[Outcome]:
    """All faults in a temporary folder, which stays if anything failed."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    outcomes: list[Outcome] = []
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "torch")
    suite = Suite(folder, args.seed, args.scenario, args.kind)
    numbers = range(args.first, args.first + args.faults) if args.only is None else [args.only]
    for number in numbers:
        try:
            outcome = suite.inject(number)
        except Exception:
            outcome = Outcome(number, "?", "?", "", problems=[f"the suite itself: {traceback.format_exc()}"])
        outcomes.append(outcome)
        state = "; ".join(outcome.problems) or "ok"
        print(
            f"{number} {outcome.scenario}, {outcome.kind} ({outcome.detail}): {outcome.code}, {outcome.seconds:.1f} s"
            f"  {outcome.message}\n    {state}",
            file=sys.stderr,
            flush=True,
        )
    if not any(outcome.problems for outcome in outcomes):
        shutil.rmtree(folder, ignore_errors=True)
    return outcomes


def main() -> int:
    """Exit code 1 where anything was not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m Testing.faults", description="Faults at random moments.")
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="number of the first fault (default: 0)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this fault only")
    parser.add_argument("--scenario", action="append", default=[], choices=sorted(SCENARIO_NAMES), help="repeatable")
    parser.add_argument("--kind", action="append", default=[], choices=KINDS, help="repeatable")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all outcomes to this file")
    args = parser.parse_args()
    begin = time.monotonic()
    outcomes = run(args)
    bad = [outcome for outcome in outcomes if outcome.problems]
    print(f"{len(outcomes)} faults in {time.monotonic() - begin:.0f} s, seed {args.seed}; {len(bad)} with problems\n")
    print(table(outcomes))
    if args.json is not None:
        with contextlib.suppress(OSError):
            args.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
