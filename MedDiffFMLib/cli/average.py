"""``meddifffm average RUN -o WEIGHTS``: choose the length of the weight average after the training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..core.input_guard import InputGuard
from .arguments import COUNT, add_command
from .console import Console
from .validate import table, validation

WIDTHS = (0.03, 0.05, 0.075, 0.1, 0.15, 0.2)


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-command."""
    parser = add_command(
        subparsers,
        common,
        "average",
        run,
        "Make weights of a run as an average over its last part, whose length validation chooses.",
        "The run has kept snapshots of two power-function averages, from which one of any "
        "other width and step is made (Karras et al. 2024).",
    )
    add = parser.add_argument
    add("run_folder", type=Path, metavar="RUN", help="folder of a run of `meddifffm pretrain`")
    add("-o", "--output", type=Path, required=True, metavar="WEIGHTS", help=".safetensors file")
    add("--step", type=int, metavar="N", help="average of the run up to this step (default: the last snapshot)")
    add("--widths", type=float, nargs="+", default=WIDTHS, metavar="X",
        help="relative widths, as a share of the training so far; with one, no validation is needed "
        f"(default: {' '.join(map(str, WIDTHS))})")  # fmt: skip
    add("--cache", type=Path, help="folder made by `meddifffm prepare`, whose validation cases choose the width")
    add(
        "--windows", type=COUNT, default=128, metavar="N", help="validation windows of each kind (default: %(default)s)"
    )


def run(args: argparse.Namespace, console: Console) -> int:
    """Make the averages, judge them, and write the best."""
    import json

    from ..core.file_hash import file_sha256
    from ..models.checkpoint import build_denoiser, save_model
    from ..training.averages import averaged_state, find_snapshots
    from ..training.pretrain.run import bare_denoiser, run_config

    config = run_config(args.run_folder)
    snapshots = find_snapshots(args.run_folder)
    if not snapshots:
        raise InputError(f"'{args.run_folder}' holds no snapshots of averages.", "Train with --averages.")
    InputGuard(snapshot.path for snapshot in snapshots).refuse([args.output])
    step = args.step or snapshots[-1].step
    if len(args.widths) > 1 and args.cache is None:
        raise InputError("Several widths, and nothing to choose by.", "Give --cache, or one width.")
    judge = validation(args.cache, args.windows) if args.cache else None
    rows: dict[str, dict[str, float]] = {}
    states = {}
    for width in args.widths:
        console.cancel.check()
        states[width] = bare_denoiser(averaged_state(snapshots, step, width))
        if judge is not None:
            denoiser = build_denoiser(config.model_config())
            denoiser.load_state_dict(states[width])
            rows[f"{width:g}"] = judge(denoiser.eval())
            console.note(f"width {width:g}: score {rows[f'{width:g}']['score']}")
    best = min(args.widths, key=lambda width: rows.get(f"{width:g}", {}).get("score", 0.0))
    trained = {"steps": step, "samples": step * config.batch, "average_width": best}
    if rows:
        trained["validation"] = rows[f"{best:g}"]
    save_model(args.output, states[best], {**config.model_config(), "training": trained})
    answer = {
        "status": "done",
        "output": str(args.output),
        "step": step,
        "width": best,
        "models": rows,
        "sha256": file_sha256(args.output),
    }
    text = f"{args.output}: average of width {best:g} after {step} steps.\nSHA-256 {answer['sha256']}"
    console.answer(json.loads(json.dumps(answer)), f"{table(rows)}\n{text}" if rows else text)
    return 0
