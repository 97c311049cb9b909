"""``meddifffm multimodal list|train|evaluate``: many modalities, stage by stage."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import Cancelled, InputError
from ..datasets.collections import COLLECTIONS
from ..training.multimodal.presets import PRESETS
from .arguments import COUNT, SEED
from .console import Console

if TYPE_CHECKING:
    from ..multimodal.pairs import Pair

ALIGN, TEXT = "align", "text"
STAGES = (ALIGN, TEXT)


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-commands."""
    sentence = "Train what makes one modality out of another, and judge it."
    parser = subparsers.add_parser("multimodal", help=sentence, description=sentence)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    train = _action(
        actions, common, "train", _train,
        "Train a stage; the same command continues a run that stopped. Under torchrun, its processes share the work.",
    )  # fmt: skip
    train.add_argument("-o", "--output", type=Path, required=True, metavar="RUN", help="folder of the run")
    train.add_argument(
        "--stage",
        choices=STAGES,
        default=ALIGN,
        help="align: the encoders; text: what reads facts in MRs and X-rays by them, calibrated (default: %(default)s)",
    )
    train.add_argument(
        "--preset",
        choices=list(PRESETS),
        default="starter",
        help="size: starter for a core or two, lab for hundreds of patients and a GPU (default: %(default)s)",
    )
    train.add_argument(
        "--initial",
        type=Path,
        metavar="FILE",
        help="encoders to go on from; what they had reached on the held-out boxes must not be worsened. Stage text: "
        "encoders to look with (default: those of RUN, else those that ship)",
    )
    train.add_argument(
        "--text-codec",
        metavar="NAME",
        help="plug-in whose vectors texts are read by (hashed-ngrams ships; others where a package offers them), in "
        "place of the grammar of facts",
    )
    train.add_argument("--steps", type=COUNT, metavar="N", help="optimizer steps in all (starter: 1000; text 1500)")
    train.add_argument("--batch", type=COUNT, metavar="N", help="boxes a step, all devices (starter: 128)")
    train.add_argument("--learning-rate", type=float, metavar="X", help="at its peak (starter: 0.003; text 0.002)")
    train.add_argument("--validate-every", type=COUNT, metavar="N", help="steps (starter: 200)")
    train.add_argument(
        "--keep-worse", action="store_true", help="keep the weights where they are worse than those of --initial"
    )
    train.add_argument("--seed", type=SEED, default=0, metavar="N", help="(default: %(default)s)")
    train.add_argument("--accelerator", default="auto", metavar="NAME", help="auto, cpu, gpu or mps (default: auto)")
    for name, what in (("links", "alignment"), ("invariant", "visual invariant")):
        train.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=True, help=f"the {what}'s loss")
    listing = actions.add_parser(
        "list", parents=[common], help="List the cases of a public collection as it was downloaded."
    )
    listing.add_argument("folder", type=Path, metavar="FOLDER", help="to which it was downloaded")
    listing.add_argument("--collection", choices=list(COLLECTIONS), required=True, help="which it is")
    listing.add_argument("-o", "--output", type=Path, required=True, metavar="JSON", help="datalist to write")
    listing.set_defaults(run=_list)
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
    if args.stage == TEXT:
        return _train_text(args, console)
    from ..core.file_hash import file_sha256
    from ..training.fabric import rank_zero_only
    from ..training.loss_plot import read_table
    from ..training.multimodal.align import LOOP, AlignConfig, align

    if args.learning_rate is not None and not 0 < args.learning_rate <= 1:
        raise InputError("The learning rate is out of range.", "Give one above 0 and up to 1.")
    names = ("batch", "steps", "learning_rate", "validate_every")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    settings: dict[str, Any] = {**PRESETS[args.preset]["align"], **given}
    batch = settings.pop("batch")
    initial = "" if args.initial is None else file_sha256(args.initial)
    loop = replace(LOOP, **settings)
    config = AlignConfig(batch, args.seed, args.links, args.invariant, initial, loop=loop)
    folder = args.output
    path = align(
        args.cache, args.pairs, folder, config, initial=args.initial, codec=args.text_codec,
        accelerator=args.accelerator, report=console.note, cancel=console.cancel,
    )  # fmt: skip
    if getattr(rank_zero_only, "rank", 0):  # one process speaks for all
        return 0
    steps = int(read_table(folder / "losses.csv")["step"][-1])
    if steps < config.loop.steps:
        console.note(f"Stopped after step {steps} of {config.loop.steps}; the same command continues.")
        raise Cancelled()
    worse = [] if args.initial is None else _pass_gate(args, path, console)
    answer = {"status": "done", "output": str(path), "steps": steps, "sha256": file_sha256(path), "worse": worse}
    told = f" Worse than before: {', '.join(worse)}." if worse else ""
    console.answer(answer, f"{path}: trained for {steps} steps.{told}\nSHA-256 {answer['sha256']}")
    return 0


def _train_text(args: argparse.Namespace, console: Console) -> int:
    """The stage that reads facts; the encoders stay as they are, so there is no gate to pass."""
    from ..core.file_hash import file_sha256
    from ..core.safe_load import read_json
    from ..models.catalogue import list_models
    from ..training.loss_plot import read_table
    from ..training.multimodal.text import FIGURES, FOLDER, LOOP, TextConfig, train_text

    if args.learning_rate is not None and not 0 < args.learning_rate <= 1:
        raise InputError("The learning rate is out of range.", "Give one above 0 and up to 1.")
    trained = args.output / "model.safetensors"
    encoders = args.initial or (trained if trained.exists() else next(iter(list_models("encoders"))).path)
    given = {name: getattr(args, name) for name in ("batch", "steps", "learning_rate")}
    settings = {**PRESETS[args.preset][TEXT], **{name: value for name, value in given.items() if value is not None}}
    batch = settings.pop("batch")
    config = TextConfig(batch, args.seed, encoders=file_sha256(encoders), loop=replace(LOOP, **settings))
    path = train_text(args.cache, args.pairs, args.output, config, encoders, report=console.note, cancel=console.cancel)
    steps = int(read_table(path.parent / "losses.csv")["step"][-1])
    if steps < config.loop.steps:
        console.note(f"Stopped after step {steps} of {config.loop.steps}; the same command continues.")
        raise Cancelled()
    figures = read_json(args.output / FOLDER / FIGURES)
    answer = {"status": "done", "output": str(path), "steps": steps, "sha256": file_sha256(path), "figures": figures}
    said = sum(row["said"] > 0 for one in figures["calibration"].values() for row in one.values())
    asked = sum(map(len, figures["calibration"].values()))
    sentence = f"{path}: trained for {steps} steps; {said} of {asked} slots may be said of some images."
    console.answer(answer, f"{sentence}\nSHA-256 {answer['sha256']}")
    return 0


def _pass_gate(args: argparse.Namespace, path: Path, console: Console) -> list[str]:
    """What training made worse of what the initial encoders had reached, on the same held-out boxes."""
    from ..multimodal.aligned import load_encoders
    from ..training.multimodal.align import read_pool
    from ..training.multimodal.gate import pass_gate
    from ..training.multimodal.retrieval import embed, figures

    _, validation = read_pool(args.cache, _pairs(args, console), args.output / "boxes", console.note)
    if not validation:
        console.note("No case validates, so nothing tells whether the encoders became worse.")
        return []
    before, after = (figures(embed(load_encoders(file), validation)) for file in (args.initial, path))
    return pass_gate(path, before, after, args.keep_worse)


def _list(args: argparse.Namespace, console: Console) -> int:
    """Write the datalist of a collection."""
    from ..datasets.collections import write_datalist

    counts = write_datalist(args.folder, args.collection, args.output)
    collection = COLLECTIONS[args.collection]
    sentence = f"{collection.title}: {counts['training']} cases for training, {counts['validation']} for validation."
    answer = {"status": "done", "output": str(args.output), **counts, "license": collection.license}
    console.answer(answer, f"{sentence}\n{collection.license}")
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
    """Aligned pairs for training and for validation; none without a list."""
    from ..training.multimodal.align import read_pairs

    return read_pairs(args.pairs, (getattr(args, "output", None) or args.run_folder) / "pairs", console.note)
