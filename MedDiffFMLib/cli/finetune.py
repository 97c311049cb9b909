"""``meddifffm finetune --task TASK --data DATA -o FOLDER``: fine-tune the prior on local cases, or go on with it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from ..core.errors import Cancelled, InputError
from ..models.names import DEFAULT_MODEL
from ..segmentation.registry import METHODS
from ..training.finetune.config import PRESETS
from ..training.finetune.registry import FINETUNE_TASKS
from . import key_values
from .arguments import PROCESSES, SEED, add_command
from .console import Console, duration
from .pretrain import LOGGERS, positive
from .slurm import add_slurm_options, submit

CHANGES = ("steps", "batch", "learning_rate", "window", "seed", "labels", "validation", "patience", "validate_every",
           "checkpoint_every")  # fmt: skip


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-command."""
    presets = " ".join(f"{name}: {preset.sentence} ({preset.steps} steps)." for name, preset in PRESETS.items())
    parser = add_command(
        subparsers,
        common,
        "finetune",
        run,
        "Fine-tune the prior for a task on your own cases.",
        "The data are checked first. The same command continues a run that was stopped or "
        "killed. FOLDER receives progress.jsonl for panels, best.safetensors, losses.csv, validation.csv, card.md and "
        f"last.pt; the result is listed by `meddifffm models`. Presets: {presets}",
    )
    add = parser.add_argument
    add("--task", choices=FINETUNE_TASKS, required=True,
        help=" ".join(f"{row.name}: {row.sentence}" for row in FINETUNE_TASKS.values()))  # fmt: skip
    add("--data", type=Path, required=True, metavar="DATA", help="dataset folder or decathlon datalist")
    add("-o", "--output", type=Path, required=True, metavar="FOLDER", help="folder of the run")
    methods = " ".join(f"{name}: {row.sentence}" for name, row in METHODS.items())
    add("--method", choices=METHODS, help=f"of segmentation (default: features). {methods}")
    add("--spacing", type=float, metavar="MM", help="of segmentation: edge of the working voxels (default: 2)")
    add("--label-names", nargs="+", metavar="N=NAME", help="of segmentation: names of label numbers")
    add("--option", action="append", metavar="KEY=VALUE", help="of the task or method, VALUE as JSON or a word")
    add("--prior", default=DEFAULT_MODEL, metavar="MODEL", help="name or .safetensors file (default: %(default)s)")
    add("--preset", choices=PRESETS, default="standard", help="size of the run (default: %(default)s)")
    add("--name", help="of the result among your models (default: from task and folder)")
    add("--title", default="", help="one line about the result")
    add("--no-register", action="store_true", help="leave the result in FOLDER only")
    add("--prepare-only", action="store_true", help="check and prepare the cases, but do not train")
    add("--cache", type=Path, metavar="FOLDER", help="folder of the prepared cases (default: FOLDER/cache)")
    _add_changes(parser)
    add("--accelerator", default="auto", metavar="NAME", help="auto, cpu, gpu or mps (default: auto)")
    add("--devices", type=positive, default=int(os.environ.get("LOCAL_WORLD_SIZE", "1")), metavar="N",
        help="devices a node (default: 1, or torchrun's setting)")  # fmt: skip
    add("--nodes", type=positive, default=1, metavar="N", help="computers (default: %(default)s)")
    add("--workers", type=PROCESSES, default=0, metavar="N", help="processes that draw samples (default: %(default)s)")
    add("--float32", action="store_true", help="compute in float32, also where the device computes bfloat16 fast")
    add("--logger", choices=LOGGERS,
        help="show the curves in TensorBoard, which reads FOLDER/tensorboard, or in MLflow, at MLFLOW_TRACKING_URI or "
        "else in FOLDER/mlflow.db")  # fmt: skip
    add_slurm_options(parser)


def _add_changes(parser: argparse.ArgumentParser) -> None:
    """Options that differ from the preset's."""
    group = parser.add_argument_group("instead of the preset's")
    add = group.add_argument
    add("--steps", type=positive, metavar="N", help="optimizer steps at most")
    add("--batch", type=positive, metavar="N", help="windows a step, all devices")
    add("--learning-rate", type=float, metavar="X", help="at its peak")
    add("--window", type=positive, metavar="N", help="edge of a window in voxels")
    add("--seed", type=SEED, metavar="N", help="of weights, windows and noise (default: 0)")
    add("--labels", type=int, nargs="+", metavar="N", help="numbers in the masks that count (default: all)")
    add("--validation", type=float, metavar="SHARE",
        help="of patients for validation, where the data name none (default: 0.2)")  # fmt: skip
    add("--patience", type=positive, metavar="N", help="validations without improvement that end the run")
    add("--validate-every", type=positive, metavar="N", help="steps")
    add("--checkpoint-every", type=positive, metavar="N", help="steps")


def run(args: argparse.Namespace, console: Console) -> int:
    """Train to the end; 130 where the user stopped it."""
    if args.slurm is not None:
        return submit(args, args.output, console)
    from ..training.finetune.run import FinetuneResult, finetune
    from ..training.finetune.setup import first_process

    changes = {name: getattr(args, name) for name in CHANGES}
    if changes["labels"] is not None:
        changes["labels"] = tuple(changes["labels"])
    changes["options"] = _options(args)
    result: FinetuneResult = finetune(
        args.data,
        args.output,
        args.task,
        prior=args.prior,
        preset=args.preset,
        name=args.name,
        title=args.title,
        register=not args.no_register,
        prepare_only=args.prepare_only,
        cache=args.cache,
        accelerator=args.accelerator,
        devices=args.devices,
        nodes=args.nodes,
        bfloat16=not args.float32,
        workers=args.workers,
        progress=console.progress,
        cancel=console.cancel,
        logger=args.logger,
        **changes,
    )
    if not first_process():  # one process speaks for all
        return 0
    for sentence in result.warnings:
        console.warning(sentence)
    if result.state == "stopped":
        console.note(f"Stopped after step {result.steps}; the same command continues.")
        raise Cancelled()
    console.answer({"status": "done", "output": str(args.output), **vars(result)}, _text(result, args.task))
    return 0


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Options of the task.

    Raises:
        InputError: one that is not KEY=VALUE, or one of segmentation for another task.
    """
    options: dict[str, Any] = {
        key: getattr(args, key) for key in ("method", "spacing") if getattr(args, key) is not None
    }
    names = key_values.pairs(args.label_names)
    if names:
        if not all(number.isdigit() for number in names):
            raise InputError("A label is named by its number.", "Give --label-names 1=tumor 2=liver.")
        options["label_names"] = [[int(number), words] for number, words in names.items()]
    if options and args.task != "segmentation":
        raise InputError(f"{', '.join(options)}: {args.task} has no such option.", "Leave it out.")
    return {**options, **key_values.options(args.option)}


def _text(result: Any, task: str) -> str:
    """The result in words."""
    if result.state == "prepared":
        return f"The cases are checked and prepared in {result.folder}; nothing was trained."
    ended = "after" if result.state == "done" else "early, after"
    before = "unknown" if result.before is None else f"{result.before:g}"
    lines = [
        f"Finished {ended} {result.steps} steps in {duration(result.seconds)}.",
        f"Kept: step {result.best_step}, {result.metric} {result.value:g} (before training: {before}).",
        f"Weights {result.weights}, card {result.folder / 'card.md'}",
    ]
    if result.model:
        row = FINETUNE_TASKS[task]
        lines.append(f"Use it by its name: meddifffm {row.used_by} CT --{row.option} {result.model}")
    return "\n".join(lines)
