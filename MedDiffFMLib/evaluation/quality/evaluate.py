"""Evaluation: the same cases and questions for the model and the baselines, in one call."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...core.atomic_files import atomic_path
from ...core.errors import InputError
from ...core.progress import CancelToken
from .added_noise import KINDS
from .baselines import classical as baselines
from .candidates import OUTPUTS, Candidate, candidates_of, settings_of
from .cases import Case, LoadedCase, load_case
from .compare_reports import compare
from .degradations import Plan, fingerprint
from .memorization import read_references
from .modalities import METHODS, MODALITY_PROTOCOLS
from .paired_tests import verdicts
from .parameter_sweep import Curve, curve_record, draw_curve
from .protocols import PROTOCOLS, Row, baseline_methods
from .random_features import NAME as RANDOM
from .report_page import markdown
from .resumption import file_name, stored_rows
from .synthesis import TASK as SYNTHESIZE
from .synthesis import SynthesisPlan, SynthesisQuestion
from .tables import HIGHER_IS_BETTER, add_told_apart, summary
from .variants import Variant
from .window_features import WINDOW_MM, FeatureSpace, HaarStatistics

MODEL_TASKS = tuple(OUTPUTS)
"""Tasks of the prior."""
EVALUATED_TASKS = (*MODEL_TASKS, *MODALITY_PROTOCOLS)
QUICK_CASES = 2
WRITE_SECONDS = 30.0
"""Between two reports of a run that goes on."""
VERSION = 3
"""Of stored figures; raise it when a protocol or a baseline changes, so that they are made anew."""
UNREPORTED = ("patches", "scores")
"""Details of rows from which figures are computed; not reported."""


def evaluate(
    model: Any,
    cases: Sequence[Case],
    tasks: Sequence[str] = MODEL_TASKS,
    out_folder: str | Path = "evaluation",
    quick: bool = False,
    *,
    plan: Plan | None = None,
    synthesis: SynthesisPlan | None = None,
    space: FeatureSpace | None = None,
    parameters: dict[str, dict[str, Any]] | None = None,
    curves: Sequence[Curve] = (),
    variants: Sequence[Variant] = (),
    references: Sequence[Case] = (),
    resume: bool = False,
    earlier: dict[str, Any] | None = None,
    cache: str | Path | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    cancel: CancelToken | None = None,
) -> dict[str, Any]:
    """Evaluate a model beside the baselines and write ``evaluation.md`` and ``evaluation.json``.

    Args:
        model: what ``load_model`` returns; None for the baselines alone.
        cases: see :func:`.cases.read_cases`. They must not have been trained on.
        tasks: any of "denoise", "inpaint", "anomaly", "synthesize" and, without a prior, "translate", "radiograph",
            "describe".
        out_folder: both files are written now and then, and when a run is stopped, so that it leaves what it has.
        quick: two cases, thinner slabs, two synthetic volumes: to see that it works, not to report.
        plan: how cases are degraded.
        synthesis: what is synthesized.
        space: features in which synthetic CTs are compared; the shipped ones by default.
        parameters: task -> fields of its parameter dataclass that differ from the defaults.
        curves: parameters to vary, each besides ``tasks``, as a table and a picture.
        variants: the model with other parameters, beside itself.
        references: volumes that synthetic CTs must not repeat: the training data.
        resume: keep every row in ``out_folder/rows``, and take those that are there from a run that was stopped.
        earlier: an earlier report, see :func:`.compare_reports.read_report`, to compare the model with case by case.
        cache: folder for degraded cases and the baselines' figures, used again by the next model; None to keep nothing.
        seed: of the model's sampling.
        progress: receives a line of text now and then.

    Returns:
        what is in ``evaluation.json``.

    Raises:
        InputError: unknown task or kind of noise, parameter out of range, unreadable case, curves, variants or
            comparison without a model.
    """
    plan, synthesis = plan or Plan(), synthesis or SynthesisPlan(seed=seed)
    if quick:
        plan, synthesis = plan.quick(), dataclasses.replace(synthesis, volumes=2)
        cases = list(cases)[:QUICK_CASES]
    if model is None and (curves or variants or earlier):
        raise InputError("Curves, variants and comparisons need a model.", "Name one with --model.")
    if not (tasks or curves):
        raise InputError("There is nothing to evaluate.", "Name tasks, or a curve.")
    _check_noise(plan)
    chosen = {task: settings_of(task, (parameters or {}).get(task, {})) for task in tasks if task in OUTPUTS}
    candidates = candidates_of(model, tasks, curves, variants, parameters or {}, seed, cancel)
    head: dict[str, Any] = {
        "model": _model_record(model),
        "seed": seed,
        "parameters": chosen,
        "quick": quick,
        "plan": dataclasses.asdict(plan),
    }
    folder, question = Path(out_folder), (cases, space or HaarStatistics(), synthesis, references)
    with _degraded(cache) as kept:
        work = _Work(tasks, curves, candidates, kept, folder / "rows" if resume else None, _teller(progress, cancel))

        def write() -> dict[str, Any]:
            report = {**head, **_findings(work, head, curves, earlier, folder)}
            if any(work.rows.values()):
                write_report(report, folder)
            return report

        written = time.monotonic()
        try:
            for done in work.steps(cases, plan, question):
                head |= done
                if time.monotonic() > written + WRITE_SECONDS:
                    write()
                    written = time.monotonic()
        finally:
            report = write()
    return report


def _teller(progress: Callable[[str], None] | None, cancel: CancelToken | None) -> Callable[[str], None]:
    """Progress message between the runs of the model, where a cancel is noticed too."""

    def tell(line: str) -> None:
        if cancel is not None:
            cancel.check()
        if progress is not None:
            progress(line)

    return tell


@contextlib.contextmanager
def _degraded(cache: str | Path | None) -> Iterator[Path]:
    """Folder for what is slow to make: the user's, or one that lasts as long as the evaluation."""
    if cache is not None:
        yield Path(cache)
        return
    with tempfile.TemporaryDirectory(prefix="meddifffm-") as folder:
        yield Path(folder)


Question = tuple[Sequence[Case], FeatureSpace, SynthesisPlan, Sequence[Case]]
"""Real patients, how they are described, what is made, what must not be repeated."""


class _Work:
    """Work that is to be done, and rows of what is done: "" for the evaluation itself, else the name of a curve."""

    def __init__(
        self,
        tasks: Sequence[str],
        curves: Sequence[Curve],
        candidates: Sequence[Candidate],
        cache: Path,
        kept: Path | None,
        tell: Callable[[str], None],
    ) -> None:
        self.kept, self.every_case = kept, False
        self.asked = {"": tuple(tasks), **{curve.name: (curve.task,) for curve in curves}}
        self.candidates, self.cache, self.tell = candidates, cache, tell
        self.rows: dict[str, list[Row]] = {key: [] for key in self.asked}

    def steps(self, cases: Sequence[Case], plan: Plan, question: Question) -> Iterator[dict[str, Any]]:
        """Do everything; yields after each step, with facts for the report."""
        all_tasks = {task for tasks in self.asked.values() for task in tasks}
        for number, case in enumerate(cases if all_tasks & {*PROTOCOLS, *MODALITY_PROTOCOLS} else (), start=1):
            loaded = load_case(case, plan.slab_mm)
            for task in [task for task in PROTOCOLS if task in all_tasks]:
                self.tell(f"case {number} of {len(cases)}, {case.name}: {task}")
                for turn, part in enumerate(plan.questions(task)):
                    self._case(task, loaded, part, turn == 0)
            for task in [task for task in MODALITY_PROTOCOLS if task in all_tasks]:
                self.tell(f"case {number} of {len(cases)}, {case.name}: {task}")
                self._share(task, MODALITY_PROTOCOLS[task](loaded, plan, self.cache, METHODS[task]()))
            self.every_case = number == len(cases)
            yield {}
        if SYNTHESIZE in all_tasks:
            yield from self._synthesis(*question)

    def _case(self, task: str, loaded: LoadedCase, plan: Plan, first: bool) -> None:
        """Baselines and model on one case; points of curves on its first question alone."""
        self._share(task, baseline_rows(task, loaded, plan, self.cache))
        for candidate in [candidate for candidate in self._of(task) if first or not candidate.curve]:
            make = functools.partial(PROTOCOLS[task], loaded, plan, self.cache, {candidate.name: candidate.run})
            self.rows[candidate.curve] += self._stored(candidate, loaded.case.name, fingerprint(loaded, plan), make)

    def _synthesis(
        self, cases: Sequence[Case], space: FeatureSpace, plan: SynthesisPlan, references: Sequence[Case]
    ) -> Iterator[dict[str, Any]]:
        """Real patients, then the model region by region."""
        known = read_references(references, self.cache, self.tell) if references else None
        self.tell("windows of the real patients, to compare synthetic ones with")
        question = SynthesisQuestion(cases, space, plan, known)
        self._share(SYNTHESIZE, question.baseline_rows())
        yield {
            "synthesis": {
                "space": space.name,
                "spacing": space.spacing,
                "window_mm": WINDOW_MM,
                "random": RANDOM,
                "references": len(references),
                "left_out": question.left_out,
                **dataclasses.asdict(plan),
            }
        }
        key = (space.name, plan, [case.name for case in (*cases, *references)])
        for region in question.regions:
            for candidate in self._of(SYNTHESIZE):
                self.tell(f"{plan.volumes} volumes of the region {region}: {candidate.name}")
                make = functools.partial(question.rows_of, candidate.name, candidate.run, region)
                self.rows[candidate.curve] += self._stored(candidate, region, key, make)
                yield {}

    def _stored(self, candidate: Candidate, name: str, about: Any, make: Callable[[], list[Row]]) -> list[Row]:
        """Rows of a candidate, from a run that was stopped where they are kept."""
        if self.kept is None:
            return make()
        file = file_name(name, candidate.task, candidate.name, key=(VERSION, candidate.key, candidate.curve, about))
        return stored_rows(self.kept / file, make)

    def _of(self, task: str) -> list[Candidate]:
        return [candidate for candidate in self.candidates if candidate.task == task]

    def _share(self, task: str, rows: list[Row]) -> None:
        """Baselines' rows go to everything that asks about the task."""
        for key, tasks in self.asked.items():
            if task in tasks:
                self.rows[key] += rows


def _findings(
    work: _Work, head: dict[str, Any], curves: Sequence[Curve], earlier: dict[str, Any] | None, folder: Path
) -> dict[str, Any]:
    """Everything that is computed from rows; pictures of the curves are drawn."""
    rows, name = work.rows[""], head["model"]["name"] if head["model"] else None
    if work.every_case:
        add_told_apart(rows)
    findings: dict[str, Any] = {
        "verdict": verdicts(rows, name, HIGHER_IS_BETTER),
        "tables": summary(rows, name),
        "rows": [_reported(row) for row in rows],
        "curves": {},
    }
    for curve in curves:
        if work.rows[curve.name]:
            record = curve_record(curve, work.rows[curve.name])
            record["picture"] = f"curve-{curve.name.replace('.', '-')}.png"
            draw_curve(folder / record["picture"], record, f"{name}: {curve.name}")
            findings["curves"][curve.name] = record
    if earlier is not None and name is not None:
        findings["compared"] = compare(rows, name, head["plan"], earlier, HIGHER_IS_BETTER)
    return findings


def _reported(row: Row) -> dict[str, Any]:
    """A row for the report."""
    details = {name: value for name, value in row.details.items() if name not in UNREPORTED}
    return dataclasses.asdict(dataclasses.replace(row, details=details))


def baseline_rows(task: str, loaded: LoadedCase, plan: Plan, cache: Path) -> list[Row]:
    """The baselines' rows of one case; each method's from the cache when nothing it depends on has changed."""
    constants = sorted((k, v) for k, v in vars(baselines).items() if k.isupper())
    key = (VERSION, fingerprint(loaded, plan), constants)
    rows: list[Row] = []
    for name, method in baseline_methods(task, loaded).items():
        make = functools.partial(PROTOCOLS[task], loaded, plan, cache, {name: method})
        rows += stored_rows(cache / file_name(loaded.case.name, task, name, key=key), make)
    return rows


def _check_noise(plan: Plan) -> None:
    """Refuse kinds of noise that do not exist, and levels that are none.

    Raises:
        InputError: one of them.
    """
    strange = [kind for kind in plan.noise_kinds if kind not in KINDS]
    if strange:
        raise InputError(f"There is no noise called {strange[0]!r}.", f"Choose from: {', '.join(KINDS)}.")
    if not all(0 < level <= 500 for level in plan.noise_levels_hu):
        raise InputError("A noise level is out of range.", "Give levels above 0 and up to 500 HU.")


def write_report(report: dict[str, Any], folder: Path) -> None:
    """``evaluation.json`` and ``evaluation.md``, replaced whole."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "evaluation.json", json.dumps(_finite(report), indent=1))
    _write(folder / "evaluation.md", markdown(report))


def _model_record(model: Any) -> dict[str, Any] | None:
    if model is None:
        return None
    return {"name": model.name, "sha256": model.sha256, "device": str(model.device)}


def _finite(value: Any) -> Any:
    """NaN and infinity as null, which JSON has no numbers for."""
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _write(file: Path, text: str) -> None:
    with atomic_path(file, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
