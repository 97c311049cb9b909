"""``meddifffm denoise|anomaly|inpaint|synthesize ...``: every task of the registry, on one case or many."""

from __future__ import annotations

import argparse
import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..conditioning.regions import REGION_CHOICES
from ..core.cluster import ClusterPlan
from ..core.devices import DEVICE_HELP
from ..core.errors import InputError
from ..core.input_guard import InputGuard
from ..core.parts import PART_HELP, WHOLE, parse_part
from ..core.precision import PRECISIONS
from ..core.text_table import columns
from ..core.visible_text import visible
from ..imaging.modality import WORDS
from ..models.names import DEFAULT_MODEL, NO_MODEL
from ..runner.batch import CaseStatus, run_batch, table_files
from ..runner.bids import NAMES, NAMES_HELP, PLAIN
from ..runner.case import run_case
from ..runner.case_files import CaseFiles
from ..runner.case_search import find_cases
from ..runner.dicom_export import refuse_inside
from ..runner.load import Loaded
from ..runner.load import load as load_for
from ..runner.outputs import plan_outputs
from ..runner.pages import BESIDE, PAPERS, PageFiles
from ..runner.report import NOTICE
from ..runner.settings import AUTOMATIC, RunSettings
from ..tasks.base import Task
from ..tasks.inputs import NONE, REQUIRED, Named
from ..tasks.registry import TASKS
from .arguments import add_parameters, parameters_from
from .cluster import add_cluster_options, cluster_of
from .console import Console, duration
from .downloads import Consent, offer
from .remote import local_copy
from .remote import source as source_type


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """One sub-command for each task."""
    for task in TASKS.values():
        parser = subparsers.add_parser(
            task.name, parents=[common], help=task.sentence, description=task.sentence, epilog=NOTICE
        )
        _add_files(parser, task)
        add_parameters(parser.add_argument_group("parameters of this task"), task)
        _add_run_options(parser.add_argument_group("how to run"), task)
        parser.set_defaults(run=run, task=task.name)


def _add_files(parser: argparse.ArgumentParser, task: type[Task]) -> None:
    inputs = task.inputs
    masks = [] if inputs.mask is NONE else ["mask", "label"]
    columns = ", ".join(["input", *masks, "anatomy", *(row.name for row in inputs.named)])
    cases = (
        f"many cases instead of INPUT: a folder, files, a .txt list of paths, or a .csv with columns {columns}. "
        "Finished cases are skipped, so the same command resumes"
    )
    kind = WORDS[inputs.modality]
    formats = ".nrrd, .nii, .nii.gz, .mha, DICOM folder, DICOMDIR, .zip of one, or DICOM file"
    source = f"{kind} as {formats}, or its dicomweb:// or pacs:// address"
    if inputs.volume is NONE:  # known all the same, so that they can be refused in words
        source = cases = argparse.SUPPRESS
    add = parser.add_argument
    for scan in inputs.scans:
        if scan.first:
            add(scan.name, nargs="?", type=Path, default=argparse.SUPPRESS, help=f"{_help(scan)}, before the input")
    add("input", nargs="?", type=source_type, help=source)
    add("-o", "--output", type=Path, help="folder, or file name of the main result (default: the current folder)")
    for scan in inputs.scans:
        add(
            _option(scan),
            type=Path,
            default=argparse.SUPPRESS,
            metavar="FILE",
            help=f"{_help(scan)}; with --batch a folder of files named as the cases",
        )
    for text in inputs.texts:
        add(_option(text), metavar="TEXT", help=_help(text))
    if inputs.mask is not NONE:
        add(
            "--mask",
            type=Path,
            help=f"label map on the {kind}'s grid, DICOM SEG or RTSTRUCT; with --batch a folder of masks named as the "
            "cases",
        )
        label = "number or name of the one label, segment or structure of the mask to take (default: all)"
        add("--label", metavar="LABEL", help=label)
    if inputs.anatomy is not NONE:
        labels = "organ label map (TotalSegmentator numbers, 118 for the body)"
        use = "whose grid the result takes" if inputs.volume is NONE else f"on the {kind}'s grid, or a folder of them"
        add("--anatomy", type=Path, help=f"{labels} {use}")
    add("--batch", nargs="+", type=Path, metavar="CASES", help=cases)
    add("--part", type=parse_part, default=WHOLE, metavar="I/N", help=f"with --batch: {PART_HELP}")
    add_cluster_options(parser)
    add("--names", choices=NAMES, default=PLAIN, help=f"with --batch: {NAMES_HELP} (default: {PLAIN})")
    add("--overwrite", action="store_true", help="replace existing outputs")
    add("--private", action="store_true", help="reports name no files, and cannot be repeated")
    add(
        "--force",
        action="store_true",
        help=f"go on with values that do not look like {kind}, as of a crop",
    )
    add(
        "--dicom",
        type=Path,
        metavar="FOLDER",
        help="also write the result as DICOM objects (CT, SEG, RTSTRUCT, parametric maps, SR) into a folder of its own "
        "in FOLDER, in the study of the scan where it came as DICOM",
    )
    _add_pages(parser)
    if inputs.volume is not NONE:
        series = "series to work on, by number or UID, where the DICOM folder or DICOMDIR holds several"
        add("--series", metavar="NUMBER|UID", help=series)


def _add_pages(parser: argparse.ArgumentParser) -> None:
    """Options for one-page reports; without a file they lie beside the result."""
    for kind in ("pdf", "html"):
        text = f"also write a one-page report as {kind.upper()}, beside the result where no FILE.{kind} is given"
        parser.add_argument(f"--{kind}", nargs="?", type=Path, const=BESIDE, metavar="FILE", help=text)
    parser.add_argument("--paper", choices=PAPERS, default=PAPERS[0], help=f"of the PDF (default: {PAPERS[0]})")


def _option(row: Named) -> str:
    return f"--{row.name.replace('_', '-')}"


def _help(row: Named) -> str:
    return f"{row.help.rstrip('.')} (required)" if row.need is REQUIRED else row.help.rstrip(".")


def _add_run_options(group: argparse._ArgumentGroup, task: type[Task]) -> None:
    if task.needs_model:
        _add_model_options(group, "chest" if task.inputs.volume is NONE else "guessed")
    else:
        group.set_defaults(seed=0, region=None, model=NO_MODEL, precision=AUTOMATIC)
    group.add_argument("--device", default=AUTOMATIC, help=DEVICE_HELP)
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: torch's choice)")
    group.add_argument(
        "--worker",
        metavar="ADDRESS",
        help="compute on another computer that has this program, ssh://[user@]host[:port][/path/of/meddifffm]; "
        "--model, --device and --threads are those of that computer",
    )


def _add_model_options(group: argparse._ArgumentGroup, region: str) -> None:
    group.add_argument("--seed", type=int, default=0, help="same seed, same result (default: 0)")
    group.add_argument(
        "--region", choices=REGION_CHOICES, help=f"body region; none tells the model nothing (default: {region})"
    )
    group.add_argument(
        "--model", default=DEFAULT_MODEL, help="name from `meddifffm models`, a .safetensors file, or hf://owner/name"
    )
    group.add_argument("--yes", action="store_true", help="download the model, if a store has it, without asking")
    group.add_argument("--precision", default=AUTOMATIC, choices=PRECISIONS)


def run(args: argparse.Namespace, console: Console) -> int:
    """Run one case or a batch."""
    inputs = TASKS[args.task].inputs
    if inputs.volume is NONE:
        inputs.check(args.task, ["volume"] if args.input or args.batch else _case_files(args).names)
    elif args.input is not None and args.batch is not None:
        raise InputError("INPUT and --batch exclude each other.", "Give one INPUT, or --batch with cases.")
    elif args.names != PLAIN and args.batch is None:
        raise InputError("--names is for --batch.", "Give --batch with one scan, or leave it out.")
    elif inputs.volume is REQUIRED and args.input is None and args.batch is None:
        raise InputError("Nothing to work on.", "Give one INPUT, or --batch with cases.")
    settings = settings_from(args)
    takes = settings.checked().parameters.takes
    if args.worker is None:
        offer(settings.model, Consent(getattr(args, "yes", False)), console)
    cluster = cluster_of(args)
    if cluster is not None:
        return _run_on_cluster(args, settings, cluster, console)
    with _loading(args.worker, settings, console) as load:
        if args.batch is not None:
            return _run_batch(args, settings, load, console)
        with local_copy(args.input, getattr(args, "series", None), takes.modality, console) as (local, origin):
            files = replace(_case_files(args), input=local, origin=origin)
            return _run_one(args, settings, replace(files, series=None) if origin else files, load, console)


@contextlib.contextmanager
def _loading(address: str | None, settings: RunSettings, console: Console) -> Iterator[Callable[[], Loaded]]:
    """Function that gives the model, once: from here, or a worker elsewhere that ends with the block."""
    from ..worker.address import parse_address
    from ..worker.remote import RemoteWorker

    if address is None:
        yield functools.cache(lambda: load_for(settings))
        return
    parse_address(address)
    with contextlib.ExitStack() as stack:

        def connect() -> Loaded:
            worker = RemoteWorker(address, on_log=console.note)
            stack.callback(worker.close)
            return worker

        yield functools.cache(connect)


def _run_one(args: argparse.Namespace, settings: RunSettings, files: CaseFiles, load: Any, console: Console) -> int:
    TASKS[args.task].inputs.check(args.task, files.names)
    plan = plan_outputs(args.task, files.source, args.output, args.seed)
    pages = _pages(args)
    report = run_case(
        settings, files, plan, load, overwrite=args.overwrite, private=args.private, dicom=args.dicom,
        pages=pages, progress=console.progress, cancel=console.cancel,
    )  # fmt: skip
    for warning in report["warnings"]:
        console.warning(warning)
    written = [plan.folder / record["file"] for record in report["outputs"].values()]
    text = "\n".join(
        visible(str(path)) for path in (*written, *pages.files(plan).values(), plan.report, *_dicom_folders(report))
    )
    console.answer({"status": "done", "report_file": plan.report, **report}, text)
    console.note(NOTICE)
    return 0


def _pages(args: argparse.Namespace) -> PageFiles:
    """The one-page reports that are wanted."""
    return PageFiles(args.pdf, args.html, args.paper)


def _dicom_folders(report: dict[str, Any]) -> list[Path]:
    """One for each series that was written as DICOM."""
    dicom = report.get("dicom")
    return [] if dicom is None else [Path(dicom["folder"]) / row["folder"] for row in dicom["series"]]


def _case_files(args: argparse.Namespace) -> CaseFiles:
    """The files of the one case."""
    inputs = TASKS[args.task].inputs
    mask, anatomy = (getattr(args, name, None) for name in ("mask", "anatomy"))
    scans, texts = _given(args, inputs.scans), _given(args, inputs.texts)
    further = {name: getattr(args, name, None) for name in ("series", "label")}
    return CaseFiles(args.input, mask, anatomy, scans, texts, force=args.force, **further)


def _given(args: argparse.Namespace, rows: Sequence[Named]) -> dict[str, Any]:
    """Name -> value of the options that were given."""
    return {row.name: value for row in rows if (value := getattr(args, row.name, None)) is not None}


def settings_from(args: argparse.Namespace) -> RunSettings:
    """Settings of a run, checked."""
    is_file = args.model.endswith(".safetensors") and args.worker is None
    model = str(Path(args.model).resolve()) if is_file else args.model
    return RunSettings(
        task=args.task,
        parameters=parameters_from(args, TASKS[args.task]),
        seed=args.seed,
        region=args.region,
        model=model,
        device=args.device,
        precision=args.precision,
        threads=args.threads,
    ).checked()


def _run_batch(args: argparse.Namespace, settings: RunSettings, load: Any, console: Console) -> int:
    cases, folder = _batch_cases(args, settings, console)
    rows = run_batch(
        settings,
        cases,
        folder,
        load,
        part=args.part,
        progress=console.progress,
        cancel=console.cancel,
        on_case=_announce(console, len(args.part.of(cases))),
        **_batch_options(args),
    )
    return _answer_rows(rows, console)


def _run_on_cluster(args: argparse.Namespace, settings: RunSettings, cluster: ClusterPlan, console: Console) -> int:
    """A batch on a cluster."""
    from ..runner.cluster_batch import run_on_cluster

    if args.batch is None or args.part != WHOLE or args.worker is not None:
        raise InputError("--cluster shares the cases of --batch by itself.", "Give --batch, and no --part or --worker.")
    cases, folder = _batch_cases(args, settings, console)
    options = {**_batch_options(args), "dicom": args.dicom and args.dicom.absolute()}
    rows = run_on_cluster(
        settings, cases, folder, cluster, cancel=console.cancel, on_case=_announce(console, len(cases)),
        note=console.note, **options,
    )  # fmt: skip
    return _answer_rows(rows, console)


def _batch_cases(args: argparse.Namespace, settings: RunSettings, console: Console) -> tuple[list[CaseFiles], Path]:
    """The cases of a batch, and the folder of their results."""
    files = _case_files(args)
    folders = {name: path for name, path in files.paths.items() if name != "volume"}
    refuse_inside(args.dicom, args.batch)
    _pages(args).beside_each()
    cases = find_cases(args.batch, settings.task, folders, files.texts, files.label, console.warning)
    cases = [replace(case, series=files.series, force=files.force) for case in cases]
    folder = args.output or Path(".")
    tables = table_files(folder, settings.task, args.part)
    InputGuard(args.batch).refuse(tables)  # a list may have the name of the table
    return cases, folder


def _batch_options(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "overwrite": args.overwrite,
        "private": args.private,
        "dicom": args.dicom,
        "names": args.names,
        "pages": _pages(args),
    }


def _answer_rows(rows: Sequence[CaseStatus], console: Console) -> int:
    """Show the table; the exit code is the worst of the cases."""
    heading = ["case", "status", "seconds", "message"]
    table = [heading, *([row.name, row.status, f"{row.seconds:.1f}", row.message] for row in rows)]
    code = max((row.exit_code for row in rows), default=0)  # more parts than cases leave some with none
    console.answer({"status": "done" if code == 0 else "error", "cases": [vars(row) for row in rows]}, columns(table))
    console.note(NOTICE)
    return code


def _announce(console: Console, count: int) -> Any:
    finished = 0

    def announce(row: CaseStatus) -> None:
        nonlocal finished
        finished += 1
        console.note(f"{finished}/{count} {row.name}: {row.status}, {duration(row.seconds)} {row.message}".rstrip())

    return announce
