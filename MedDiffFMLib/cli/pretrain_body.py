"""``meddifffm pretrain-body FOLDER``: train the network of body coordinates on prepared cases, in minutes on a CPU."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..core.atomic_files import check_output
from ..core.errors import InputError
from .arguments import SEED, add_command
from .console import Console


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-command."""
    parser = add_command(
        subparsers,
        common,
        "pretrain-body",
        run,
        "Train body coordinates without labels.",
        "They tell which part of a body a scan shows, and whether it is turned around.",
    )
    parser.add_argument("cache", type=Path, metavar="FOLDER", help="folder made by `meddifffm prepare`")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="WEIGHTS", help=".safetensors file")
    parser.add_argument("--minutes", type=float, default=12.0, help="of processor time (default: %(default)g)")
    parser.add_argument("--seed", type=SEED, default=0, help="of weights and windows (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")


def run(args: argparse.Namespace, console: Console) -> int:
    """Train, and write the weights."""
    from ..preprocessing.body_coordinates import save_regressor
    from ..training.pretrain.body_coordinates import BodyConfig, read_scans, train_body

    check_output(args.output, overwrite=args.overwrite)
    if args.output.suffix != ".safetensors" or not args.minutes > 0 or args.seed < 0:
        raise InputError(
            "Output, minutes or seed are out of range.", "Give a .safetensors file, minutes above 0, a seed from 0 on."
        )
    config = BodyConfig(minutes=args.minutes, seed=args.seed)
    network, facts = train_body(read_scans(args.cache), config, console.note, console.cancel)
    digest = save_regressor(args.output, network, facts)
    text = f"{args.output}: {facts['steps']} steps on {facts['cases']} cases.\nSHA-256 {digest}"
    console.answer({"status": "done", "output": str(args.output), "sha256": digest, **facts}, text)
    return 0
