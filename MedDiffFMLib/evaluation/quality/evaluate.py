"""Evaluation: the same cases and questions for the model and the baselines, in one call."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...core.atomic_files import atomic_path
from ...core.errors import InputError
from ...core.progress import CancelToken
from ...imaging.volume import Volume
from ...tasks.parameters import check
from ...tasks.registry import TASKS
from .baselines import classical as baselines
from .cases import Case, LoadedCase, load_case
from .compare_reports import compare
from .degradations import Plan, fingerprint
from .paired_tests import verdicts
from .parameter_sweep import Curve, curve_record, draw_curve
from .protocols import PROTOCOLS, Answer, Method, Row, baseline_methods
from .report_page import markdown
from .synthesis import TASK as SYNTHESIZE
from .synthesis import Generator, SynthesisPlan, SynthesisQuestion
from .tables import HIGHER_IS_BETTER, summary
from .window_features import WINDOW_MM, FeatureSpace, HaarStatistics
from .window_seams import Borders, window_borders

OUTPUTS = {"denoise": "denoised", "inpaint": "inpainted", "anomaly": "anomaly", SYNTHESIZE: "synthetic"}
"""Which volume of a task's result is scored."""
EVALUATED_TASKS = tuple(OUTPUTS)
QUICK_CASES = 2
EVALUATED = {"inpaint": {"feather": 0.0, "margin": 0.0}}
"""Defaults that differ in an evaluation: a healthy sphere has no rim to keep away from, nothing to blend with."""
VERSION = 2
"""Of the baselines' figures; raise it when a protocol or a baseline changes, so that stored ones are made anew."""


@dataclass(frozen=True)
class Candidate:
    """One way to run the model.

    Attributes:
        name: method name of its rows.
        run: a :data:`.protocols.Method`, or a :data:`.synthesis.Generator`.
        curve: name of the curve that it is a point of; empty for the model as it is evaluated.
    """

    task: str
    name: str
    run: Callable[..., Any]
    curve: str = ""


def evaluate(model: Any, cases: Sequence[Case], tasks: Sequence[str] = EVALUATED_TASKS,
             out_folder: str | Path = "evaluation", quick: bool = False, *, plan: Plan | None = None,
             synthesis: SynthesisPlan | None = None, space: FeatureSpace | None = None,
             parameters: dict[str, dict[str, Any]] | None = None, curves: Sequence[Curve] = (),
             earlier: dict[str, Any] | None = None, cache: str | Path | None = None, seed: int = 0,
             progress: Callable[[str], None] | None = None,
             cancel: CancelToken | None = None) -> dict[str, Any]:  # fmt: skip
    """Evaluate a model beside the baselines and write ``evaluation.md`` and ``evaluation.json``.

    Args:
        model: what ``load_model`` returns; None for the baselines alone.
        cases: see :func:`.cases.read_cases`. They must not have been trained on.
        tasks: any of "denoise", "inpaint", "anomaly", "synthesize".
        out_folder: both files are written after every case, so that an interrupted run leaves what it has.
        quick: two cases, thinner slabs, two synthetic volumes: to see that it works, not to report.
        plan: how cases are degraded.
        synthesis: what is synthesized.
        space: features in which synthetic CTs are compared; the shipped ones by default.
        parameters: task -> fields of its parameter dataclass that differ from the defaults.
        curves: parameters to vary, each besides ``tasks``, as a table and a picture.
        earlier: an earlier report, see :func:`.compare_reports.read_report`, to compare the model with case by case.
        cache: folder for degraded cases and the baselines' figures, used again by the next model; None to keep nothing.
        seed: of the model's sampling.
        progress: receives a line of text now and then.

    Returns:
        what is in ``evaluation.json``.

    Raises:
        InputError: unknown task, parameter out of range, unreadable case, curves or comparison without a model.
    """
    plan, synthesis = plan or Plan(), synthesis or SynthesisPlan(seed=seed)
    if quick:
        plan, synthesis = plan.quick(), dataclasses.replace(synthesis, volumes=2)
        cases = list(cases)[:QUICK_CASES]
    if model is None and (curves or earlier):
        raise InputError("Curves and comparisons need a model.", "Name one with --model.")
    if not (tasks or curves):
        raise InputError("There is nothing to evaluate.", "Name tasks, or a curve.")
    chosen = {task: _settings(task, (parameters or {}).get(task, {})) for task in tasks if task in OUTPUTS}
    candidates = _candidates(model, tasks, curves, parameters or {}, seed, cancel)
    head: dict[str, Any] = {
        "model": _model_record(model), "seed": seed, "parameters": chosen, "quick": quick,
        "plan": dataclasses.asdict(plan),
    }  # fmt: skip
    folder, question = Path(out_folder), (cases, space or HaarStatistics(), synthesis)
    with _degraded(cache) as kept:
        work = _Work(tasks, curves, candidates, kept, _teller(progress, cancel))
        report = {**head, **_findings(work, head, curves, earlier, folder)}
        for done in work.steps(cases, plan, question):
            head |= done
            report = {**head, **_findings(work, head, curves, earlier, folder)}
            write_report(report, folder)
    return report


def _teller(progress: Callable[[str], None] | None, cancel: CancelToken | None) -> Callable[[str], None]:
    """Tells what comes next, and is where a wish to stop is noticed between the runs of the model."""

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


class _Work:
    """What is to be done, and the rows of what is done: "" for the evaluation itself, else the name of a curve."""

    def __init__(self, tasks: Sequence[str], curves: Sequence[Curve], candidates: Sequence[Candidate], cache: Path,
                 tell: Callable[[str], None]) -> None:  # fmt: skip
        self.asked = {"": tuple(tasks), **{curve.name: (curve.task,) for curve in curves}}
        self.candidates, self.cache, self.tell = candidates, cache, tell
        self.rows: dict[str, list[Row]] = {key: [] for key in self.asked}

    def steps(self, cases: Sequence[Case], plan: Plan,
              question: tuple[Sequence[Case], FeatureSpace, SynthesisPlan]) -> Iterator[dict[str, Any]]:  # fmt: skip
        """Do everything; yields after each step, with facts for the report."""
        wanted = {task for tasks in self.asked.values() for task in tasks}
        for number, case in enumerate(cases if wanted & set(PROTOCOLS) else (), start=1):
            loaded = load_case(case, plan.slab_mm)
            for task in [task for task in PROTOCOLS if task in wanted]:
                self.tell(f"case {number} of {len(cases)}, {case.name}: {task}")
                self._case(task, loaded, plan)
            yield {}
        if SYNTHESIZE in wanted:
            yield from self._synthesis(*question)

    def _case(self, task: str, loaded: LoadedCase, plan: Plan) -> None:
        """Baselines and model on one case."""
        self._share(task, baseline_rows(task, loaded, plan, self.cache))
        for one in self._of(task):
            self.rows[one.curve] += PROTOCOLS[task](loaded, plan, self.cache, {one.name: one.run})

    def _synthesis(self, cases: Sequence[Case], space: FeatureSpace, plan: SynthesisPlan) -> Iterator[dict[str, Any]]:
        """Real patients, then the model region by region."""
        self.tell("windows of the real patients, to compare synthetic ones with")
        question = SynthesisQuestion(cases, space, plan)
        self._share(SYNTHESIZE, question.baseline_rows())
        yield {"synthesis": {"space": space.name, "spacing": space.spacing, "window_mm": WINDOW_MM,
                             "left_out": question.left_out, **dataclasses.asdict(plan)}}  # fmt: skip
        for region in question.regions:
            for one in self._of(SYNTHESIZE):
                self.tell(f"{plan.volumes} volumes of the region {region}: {one.name}")
                self.rows[one.curve] += question.rows_of(one.name, one.run, region)
                yield {}

    def _of(self, task: str) -> list[Candidate]:
        return [one for one in self.candidates if one.task == task]

    def _share(self, task: str, rows: list[Row]) -> None:
        """Baselines' rows go to everything that asks about the task."""
        for key, tasks in self.asked.items():
            if task in tasks:
                self.rows[key] += rows


def _findings(work: _Work, head: dict[str, Any], curves: Sequence[Curve], earlier: dict[str, Any] | None,
              folder: Path) -> dict[str, Any]:  # fmt: skip
    """Everything that is computed from rows; pictures of the curves are drawn."""
    rows, name = work.rows[""], head["model"]["name"] if head["model"] else None
    found: dict[str, Any] = {
        "verdict": verdicts(rows, name, HIGHER_IS_BETTER), "tables": summary(rows, name),
        "rows": [dataclasses.asdict(row) for row in rows], "curves": {},
    }  # fmt: skip
    for curve in curves:
        if work.rows[curve.name]:
            record = curve_record(curve, work.rows[curve.name])
            record["picture"] = f"curve-{curve.name.replace('.', '-')}.png"
            draw_curve(folder / record["picture"], record, f"{name}: {curve.name}")
            found["curves"][curve.name] = record
    if earlier is not None and name is not None:
        found["compared"] = compare(rows, name, head["plan"], earlier, HIGHER_IS_BETTER)
    return found


def baseline_rows(task: str, loaded: LoadedCase, plan: Plan, cache: Path) -> list[Row]:
    """The baselines' rows of one case; each method's from the cache when nothing it depends on has changed."""
    constants = {k: v for k, v in vars(baselines).items() if k.isupper()}
    key = hashlib.sha256(repr((VERSION, fingerprint(loaded, plan), sorted(constants.items()))).encode()).hexdigest()
    rows: list[Row] = []
    for name, method in baseline_methods(task, loaded, plan, cache).items():
        slug = "".join(c if c.isalnum() else "-" for c in name)
        file = cache / f"{loaded.case.name}-{task}-{slug}-{key[:12]}.json"
        if not file.is_file():
            found = PROTOCOLS[task](loaded, plan, cache, {name: method})
            _write(file, json.dumps([dataclasses.asdict(row) for row in found]))
        rows += [Row(**row) for row in json.loads(file.read_text(encoding="utf-8"))]
    return rows


def _candidates(model: Any, tasks: Sequence[str], curves: Sequence[Curve], parameters: dict[str, dict[str, Any]],
                seed: int, cancel: CancelToken | None) -> list[Candidate]:  # fmt: skip
    """Every way in which the model is to be run; none without a model. All parameters are checked.

    Raises:
        InputError: a task that is not evaluated, or parameters that it does not have.
    """
    for task in tasks:
        if task not in OUTPUTS:
            raise InputError(f"There is no evaluation of {task!r}.", f"Choose from: {', '.join(OUTPUTS)}.")
    if model is None:
        return []

    def candidate(task: str, name: str, changed: dict[str, Any], curve: str = "") -> Candidate:
        fields = _settings(task, parameters.get(task, {})) | changed
        checked = _checked(task, fields)
        if task == SYNTHESIZE:
            return Candidate(task, name, _generator(model, checked, cancel), curve)
        return Candidate(task, name, _method(model, task, checked, seed, cancel), curve)

    plain = [candidate(task, model.name, {}) for task in tasks]
    points = [candidate(c.task, c.label(v), c.settings(v), c.name) for c in curves for v in c.values]
    return plain + points


def _settings(task: str, given: dict[str, Any]) -> dict[str, Any]:
    """The evaluation's own defaults, where the task has such fields, and over them what the user gave."""
    known = {field.name for field in dataclasses.fields(TASKS[task].parameter_class())}
    return {name: value for name, value in EVALUATED.get(task, {}).items() if name in known} | given


def _checked(task: str, fields: dict[str, Any]) -> Any:
    """The task's parameters.

    Raises:
        InputError: a field that the task does not have, or a value out of range.
    """
    try:
        chosen = TASKS[task].parameter_class()(**fields)
    except TypeError as error:
        raise InputError(f"{task} does not take these parameters: {fields}.", str(error)) from error
    check(chosen)
    return chosen


def _method(model: Any, task: str, parameters: Any, seed: int, cancel: CancelToken | None) -> Method:
    """A task as a method of its protocol."""
    run = TASKS[task].run()

    from ...tasks.denoise.coarse_to_fine import OVERLAP as DENOISE_OVERLAP

    def method(volume: Volume, mask: np.ndarray | None = None) -> Answer:
        result = run(volume, model, parameters, mask=mask, seed=seed, cancel=cancel)
        voxels = result.volumes[OUTPUTS[task]]
        # On a grid of its own a task's windows end elsewhere, and interpolation hides where.
        own_voxels = task == "denoise" and getattr(parameters, "spacing", None) is None
        borders = _borders(model, voxels.shape, DENOISE_OVERLAP) if own_voxels else None
        return Answer(voxels, result.facts.get("network_evaluations"), borders)

    return method


def _generator(model: Any, parameters: Any, cancel: CancelToken | None) -> Generator:
    """The task that makes CTs."""
    run = TASKS[SYNTHESIZE].run()

    from ...inference.sliding_window import OVERLAP

    def generate(region: str, seed: int) -> tuple[Volume, Answer]:
        result = run(None, model, parameters, region=region, seed=seed, cancel=cancel)
        voxels = result.volumes[OUTPUTS[SYNTHESIZE]]
        answer = Answer(voxels, result.facts.get("network_evaluations"), _borders(model, voxels.shape, OVERLAP))
        assert result.ijk_to_ras is not None  # a task without a CT says where its result lies
        return Volume(voxels, result.ijk_to_ras), answer

    return generate


def _borders(model: Any, shape: tuple[int, ...], overlap: int) -> Borders | None:
    """Where the windows of the last network calls, those on the result's own voxels, end."""
    engine = getattr(model, "engine", None)
    if engine is None:
        return None
    return window_borders(shape, engine.memory_level.window, overlap, engine.divisor)  # type: ignore[arg-type]


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
