"""``meddifffm dataset create|add|list|remove|split|check FOLDER``: cases for fine-tuning."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..core.input_guard import InputGuard
from ..core.json_files import write_json
from ..core.text_table import columns
from ..training.finetune.registry import FINETUNE_TASKS
from .arguments import COUNT, SEED
from .console import Console


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-commands."""
    sentence = "Gather cases for fine-tuning in a folder, and check them."
    parser = subparsers.add_parser("dataset", help=sentence, description=sentence)
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    def action(name: str, function: Any, help_text: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, parents=[common], help=help_text, description=help_text)
        sub.add_argument("folder", type=Path, metavar="FOLDER", help="dataset folder")
        sub.set_defaults(run=function)
        return sub

    create = action("create", _create, "Make a dataset folder, from pairs or a datalist if given; resumes.")
    create.add_argument("--title", default="", help="name of the dataset (default: the folder's)")
    source = create.add_mutually_exclusive_group()
    source.add_argument("--pairs", type=Path, metavar="FOLDER", help="folder of images and masks")
    source.add_argument("--datalist", type=Path, metavar="JSON",
                        help="MONAI decathlon datalist, or dataset.json of a raw dataset of nnU-Net")  # fmt: skip
    source.add_argument("--generated", type=Path, metavar="FOLDER", help="results of generate_lesion")
    create.add_argument(
        "--patient-pattern", metavar="REGEX", help="with --pairs: its first group is the patient in a case's name"
    )

    add = action("add", _add, "Add one case.")
    add.add_argument("image", type=Path, metavar="CT", help="NRRD, NIfTI or DICOM")
    add.add_argument("--mask", type=Path, metavar="FILE", help="lesions: label map on the CT's grid")
    add.add_argument(
        "--anatomy", type=Path, metavar="FILE", help="organs: TotalSegmentator's numbers, on the CT's grid"
    )
    named = add.add_mutually_exclusive_group()
    named.add_argument("--labels", type=Path, metavar="JSON",
                       help="what the numbers in the mask stand for: a file with names, colors and terminology under "
                       "'labels', as in a datalist; the same name has the same number in all cases")  # fmt: skip
    named.add_argument("--label-names", nargs="+", metavar="N=NAME", help="the same, names alone")
    add.add_argument("--name", help="of the case (default: the file's)")
    add.add_argument("--patient", help="cases of one patient are never split (default: the case's name)")
    add.add_argument("--region", help="region of the body (default: guessed)")

    export = action("export", _export, "Write the cases with masks as a raw dataset of nnU-Net (version 2).")
    export.add_argument("--nnunet", type=Path, required=True, metavar="FOLDER",
                        help="such as nnUNet_raw/Dataset501_Lesions")  # fmt: skip
    action("list", _list, "List the cases.")
    action("remove", _remove, "Remove cases with their files.").add_argument("names", nargs="+", metavar="NAME")

    split = action("split", _split, "Choose patients for validation; the same seed gives the same split.")
    split.add_argument("--validation", type=float, default=0.2, metavar="SHARE", help="of patients (default: 0.2)")
    split.add_argument("--seed", type=SEED, default=0, metavar="N", help="(default: 0)")

    check = action("check", _check, "Say what is wrong with a dataset folder or a datalist, all at once.")
    check.add_argument("--task", choices=FINETUNE_TASKS, default="lesion", help="(default: lesion)")
    check.add_argument("--labels", type=int, nargs="+", default=[], metavar="N", help="numbers in the masks that count")
    check.add_argument("--window", type=COUNT, default=64, metavar="N", help="edge of a training window (default: 64)")
    check.add_argument("--report", type=Path, metavar="JSON", help="write the report to this file, too")


def _create(args: argparse.Namespace, console: Console) -> int:
    """Make the folder and fill it; the exit code is the worst of the cases."""
    from ..datasets.dataset_folder import Dataset
    from ..datasets.importers import add_datalist, add_files, find_pairs
    from ..runner.generated_cases import LABELS, generated_cases

    if args.patient_pattern is not None and args.pairs is None:
        raise InputError("--patient-pattern is of use with --pairs only.", "Leave it out.")
    entries = find_pairs(args.pairs, args.patient_pattern) if args.pairs else None
    generated = generated_cases(args.generated) if args.generated else []
    dataset = Dataset.create(args.folder, args.title)
    added = []
    if entries is not None:
        added = add_files(dataset, entries, report=console.note, cancel=console.cancel)
    elif args.generated is not None:
        added = add_files(dataset, generated, labels=LABELS, report=console.note, cancel=console.cancel)
    elif args.datalist is not None:
        added = add_datalist(dataset, args.datalist, report=console.note, cancel=console.cancel)
    code = max((case.exit_code for case in added), default=0)
    skipped = sum(case.state == "skipped" for case in added)
    answer = {"status": "error" if code else "done", "folder": str(args.folder), "cases": [vars(c) for c in added]}
    console.answer(answer, f"{args.folder}: {len(dataset.cases())} cases; {skipped} skipped.")
    return code


def _add(args: argparse.Namespace, console: Console) -> int:
    from ..datasets.dataset_folder import Dataset
    from ..imaging.image_files import stem_of
    from ..imaging.io import read_volume

    dataset = Dataset(args.folder)
    mask, anatomy = (None if p is None else read_volume(p, modality="mask") for p in (args.mask, args.anatomy))
    case = dataset.add(
        args.name or stem_of(args.image),
        read_volume(args.image),
        mask,
        anatomy=anatomy,
        patient=args.patient,
        region=args.region,
        labels=_given_labels(args),
    )
    console.answer({"status": "done", "case": case.as_dict()}, f"{case.name} is added to {args.folder}.")
    return 0


def _given_labels(args: argparse.Namespace) -> dict[int, Any] | None:
    """Names that the command line gives to the numbers in the mask."""
    from ..datasets.labels import labels_in

    if (args.labels or args.label_names) and args.mask is None:
        raise InputError("Labels name the numbers of a mask, and there is none.", "Give --mask, or leave them out.")
    if args.labels is not None:
        labels = labels_in(args.labels)
        if not labels:
            raise InputError(f"'{args.labels}' names no labels.", 'Expected {"labels": {"1": "tumor", "2": "liver"}}.')
        return labels
    pairs = [text.partition("=") for text in args.label_names or ()]
    if not all(number.isdecimal() and name for number, _, name in pairs):
        raise InputError("A label is named by its number.", "Give --label-names 1=tumor 2=liver.")
    return {int(number): name for number, _, name in pairs} or None


def _export(args: argparse.Namespace, console: Console) -> int:
    from ..datasets.dataset_folder import Dataset
    from ..datasets.nnunet import write_nnunet

    dataset = Dataset(args.folder)
    names = {value: label.name for value, label in dataset.labels().items()}
    written = write_nnunet(dataset.cases(), names, args.nnunet, dataset.title, console.note)
    for name in written.left_out:
        console.warning(f"{name} has no mask and is left out.")
    text = f"{args.nnunet}: {written.cases} cases with {', '.join(list(written.labels)[1:])}."
    console.answer({"status": "done", "folder": str(args.nnunet), **vars(written)}, text)
    return 0


def _list(args: argparse.Namespace, console: Console) -> int:
    from ..datasets.dataset_folder import Dataset

    cases, damaged = Dataset(args.folder).scan()
    rows = [["case", "split", "patient", "voxels", "spacing (mm)", "labels"]]
    for case in cases:
        size, spacing = (" x ".join(f"{n:g}" for n in values) for values in (case.shape, case.spacing))
        names = {label.value: f"{label.value} {label.name}" for label in case.named}
        labels = ", ".join(names.get(n, str(n)) for n in case.labels) if "label" in case.files else "no mask"
        rows.append([case.name, case.split, case.patient, size, spacing, labels])
    rows += [[name, "damaged", "", "", "", reason] for name, reason in damaged.items()]
    validating = sum(case.split == "validation" for case in cases)
    total = f"{len(cases)} cases, {validating} of them for validation; {len(damaged)} damaged."
    answer = {"status": "error" if damaged else "done", "cases": [case.as_dict() for case in cases], "damaged": damaged}
    console.answer(answer, f"{columns(rows)}\n\n{total}")
    return InputError.exit_code if damaged else 0


def _remove(args: argparse.Namespace, console: Console) -> int:
    from ..datasets.dataset_folder import Dataset

    dataset = Dataset(args.folder)
    for name in args.names:
        dataset.remove(name)
        console.note(f"{name} is removed.")
    console.answer({"status": "done", "removed": args.names}, f"{args.folder}: {len(dataset.cases())} cases left.")
    return 0


def _split(args: argparse.Namespace, console: Console) -> int:
    from ..datasets.dataset_folder import Dataset

    splits = Dataset(args.folder).split(args.validation, args.seed)
    lines = [f"{split} ({len(names)}): {', '.join(names)}" for split, names in splits.items()]
    console.answer({"status": "done", **splits}, "\n".join(lines))
    return 0


def _check(args: argparse.Namespace, console: Console) -> int:
    from ..datasets.check import Needs, check_dataset

    if args.report is not None:
        InputGuard(args.folder.glob("*.json")).refuse([args.report])
    needs = Needs(
        args.task,
        FINETUNE_TASKS[args.task].needs_mask,
        args.window,
        tuple(args.labels),
        few=FINETUNE_TASKS[args.task].few,
    )
    checked = check_dataset(args.folder, needs, report=console.note, cancel=console.cancel)
    if args.report is not None:
        write_json(checked.as_dict(), args.report, overwrite=True)
    console.answer(checked.as_dict(), checked.text())
    return InputError.exit_code if checked.errors else 0
