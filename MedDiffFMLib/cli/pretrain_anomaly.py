"""``meddifffm pretrain-anomaly DATALIST``: train the detector of the anomaly map on CTs as they are, on a CPU."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..core.atomic_files import check_output
from ..core.errors import InputError
from ..core.input_guard import InputGuard
from .arguments import SEED
from .calibrate import SPLITS, Cases
from .console import Console


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-command."""
    sentence = "Train the detector of the anomaly map."
    parser = subparsers.add_parser(
        "pretrain-anomaly", parents=[common], help=sentence,
        description=f'{sentence} It learns from tissue that is put where it does not belong and from '
        'lesions, which are the voxels above 0 in a case\'s "label".',
    )  # fmt: skip
    parser.add_argument("datalist", type=Path, help="MONAI decathlon JSON")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="WEIGHTS", help=".safetensors file")
    parser.add_argument(
        "--splits", nargs="+", choices=SPLITS, default=("training",), help="use these (default: training)"
    )
    parser.add_argument("--seed", type=SEED, default=0, help="of weights and misplaced tissue (default: 0)")
    parser.add_argument("--leave-lesions-out", action="store_true", help="do not learn from outlined lesions")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> int:
    """Train, and write the weights."""
    from ..datasets.datalist import read_datalist
    from ..tasks.anomaly.detector import save_detector
    from ..training.pretrain.anomaly_detector import DetectorConfig, train_detector

    check_output(args.output, overwrite=args.overwrite)
    if args.output.suffix != ".safetensors":
        raise InputError(f"'{args.output.name}' does not end in .safetensors.", "Choose another name.")
    InputGuard([args.datalist]).refuse([args.output])
    entries = read_datalist(args.datalist, tuple(args.splits))
    cases = Cases(entries, console)
    config = DetectorConfig(seed=args.seed, show_lesions=not args.leave_lesions_out)
    detector, facts = train_detector(cases, config, console.note, [entry.patient for entry in entries])
    console.cancel.check()
    digest = save_detector(args.output, detector, facts)
    answer = {"status": "done", "output": str(args.output), "sha256": digest, **facts}
    console.answer(answer, f"{args.output}: trained on {len(cases)} cases.\nSHA-256 {digest}")
    return 0
