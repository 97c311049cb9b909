"""``meddifffm multimodal train|evaluate``: many modalities, stage by stage."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import Cancelled, InputError
from .arguments import COUNT, SEED
from .console import Console

if TYPE_CHECKING:
    from ..multimodal.pairs import Pair

STAGES = ("align",)


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-commands."""
    sentence = "Train what makes one modality out of another, and judge it."
    parser = subparsers.add_parser("multimodal", help=sentence, description=sentence)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    train = _action(actions, common, "train", _train, "Train a stage; the same command continues a run that stopped.")
    train.add_argument("-o", "--output", type=Path, required=True, metavar="RUN", help="folder of the run")
    train.add_argument(
        "--stage",
        choices=STAGES,
        default="align",
        help="align: the encoders (default: %(default)s)",
    )
    train.add_argument("--steps", type=COUNT, metavar="N", help="optimizer steps in all (default: 1000)")
    train.add_argument("--batch", type=COUNT, default=128, metavar="N", help="boxes a step (default: %(default)s)")
    train.add_argument("--learning-rate", type=float, metavar="X", help="at its peak (default: 0.001)")
    train.add_argument("--validate-every", type=COUNT, metavar="N", help="steps (default: 200)")
    train.add_argument("--initial", type=Path, metavar="FILE", help="encoders to go on from (default: random ones)")
    train.add_argument("--seed", type=SEED, default=0, metavar="N", help="(default: %(default)s)")
    for name, what in (("links", "alignment"), ("invariant", "visual invariant")):
        train.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=True, help=f"the {what}'s loss")
    judge = _action(actions, common, "evaluate", _evaluate, "Judge encoders on held-out boxes, beside baselines.")
    judge.add_argument("run_folder", type=Path, metavar="RUN", help="folder of a run; its boxes are used")
    judge.add_argument("--weights", type=Path, metavar="FILE", help="of other encoders (default: the run's)")


def _action(
    actions: Any, common: argparse.ArgumentParser, name: str, function: Any, sentence: str
) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = actions.add_parser(name, parents=[common], help=sentence, description=sentence)
    sub.add_argument("cache", type=Path, metavar="DATA", help="folder made by `meddifffm prepare`")
    sub.add_argument(
        "--pairs", type=Path, metavar="JSON", help='MONAI decathlon JSON; rows have "image" (CT), "mr" and "patient"'
    )
    sub.set_defaults(run=function)
    return sub


def _train(args: argparse.Namespace, console: Console) -> int:
    """Train to the end; 130 where the user stopped it."""
    from ..core.file_hash import file_sha256
    from ..multimodal.aligned import load_encoders
    from ..training.loss_plot import read_table
    from ..training.multimodal.align import LOOP, AlignConfig, align

    if args.learning_rate is not None and not 0 < args.learning_rate <= 1:
        raise InputError("The learning rate is out of range.", "Give one above 0 and up to 1.")
    given = {"steps": args.steps, "learning_rate": args.learning_rate, "validate_every": args.validate_every}
    loop = replace(LOOP, **{name: value for name, value in given.items() if value is not None})
    config = AlignConfig(args.batch, args.seed, args.links, args.invariant, loop)
    folder, initial = args.output, load_encoders(args.initial) if args.initial else None
    path = align(args.cache, _pairs(args, console), folder, config, initial=initial, report=console.note)
    steps = int(read_table(folder / "losses.csv")["step"][-1])
    if steps < config.loop.steps:
        console.note(f"Stopped after step {steps} of {config.loop.steps}; the same command continues.")
        raise Cancelled()
    answer = {"status": "done", "output": str(path), "steps": steps, "sha256": file_sha256(path)}
    console.answer(answer, f"{path}: trained for {steps} steps.\nSHA-256 {answer['sha256']}")
    return 0


def _evaluate(args: argparse.Namespace, console: Console) -> int:
    """Figures of the validation cases."""
    from ..multimodal.aligned import load_encoders
    from ..training.multimodal.align import read_pool
    from ..training.multimodal.retrieval import table

    encoders = load_encoders(args.weights or args.run_folder / "model.safetensors")
    _, validation = read_pool(args.cache, _pairs(args, console), args.run_folder / "boxes", console.note)
    if not validation:
        raise InputError(f"'{args.cache}' has no validation case.", "Name some in the datalist.")
    rows = table(encoders, validation)
    console.answer({"status": "done", "figures": rows}, "\n".join(f"{name}: {value}" for name, value in rows.items()))
    return 0


def _pairs(args: argparse.Namespace, console: Console) -> tuple[list[Pair], list[Pair]]:
    """Aligned pairs for training and validation; none without a list."""
    from ..training.multimodal.align import read_pairs

    return read_pairs(args.pairs, (getattr(args, "output", None) or args.run_folder) / "pairs", console.note)
