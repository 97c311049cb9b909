"""``meddifffm pretrain-translate PAIRS``: train the flows that make CT from MR and MR from CT."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.errors import Cancelled
from ..training.multimodal.presets import PRESETS
from .arguments import COUNT, SEED, add_command
from .console import Console


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-command."""
    parser = add_command(
        subparsers,
        common,
        "pretrain-translate",
        run,
        "Train CT from MR and MR from CT, on pairs and on MRs simulated from CTs.",
        "The same command continues a run that was stopped or killed, on the same curve. FOLDER receives "
        "translate.safetensors, the aligned pairs, losses.csv, validation.csv and last.pt. Under torchrun, its "
        "processes share the work.",
    )
    add = parser.add_argument
    add("datalist", type=Path, metavar="PAIRS", help='MONAI decathlon JSON; rows have "image" (CT), "mr" and "patient"')
    add("-o", "--output", type=Path, required=True, metavar="FOLDER", help="folder of the run")
    add("--cts", type=Path, metavar="CACHE",
        help="folder of `meddifffm prepare`, from whose CTs MRs are simulated (else: real pairs alone)")  # fmt: skip
    add("--initial", type=Path, metavar="FILE", help="weights to go on from, such as those that ship, instead of none")
    add("--invariant-weight", type=float, default=0.0, metavar="X",
        help="of the visual invariant in the loss (default: 0; 0.1 gained 0.4 and 1.3 HU in short runs)")  # fmt: skip
    add("--encoders", metavar="NAME", help="that judge it: of the catalogue, or a file (default: what ships)")
    add("--trunk", metavar="MODEL",
        help="prior of CTs (name or .safetensors) on whose network the flow of CT is built and with whose weights it "
        "begins; all of its layers are trained")  # fmt: skip
    add("--preset", choices=list(PRESETS), default="starter",
        help="size: starter for a core or two, lab with wider flows for hundreds of pairs and a GPU")  # fmt: skip
    add("--steps", type=COUNT, metavar="N", help="optimizer steps in all (starter: 450)")
    add("--batch", type=COUNT, metavar="N", help="windows a step, all devices (starter: 3)")
    add("--learning-rate", type=float, metavar="X", help="at its peak (starter: 0.0015)")
    add("--seed", type=SEED, default=0, metavar="N", help="of weights, windows and noise (default: %(default)s)")
    add("--float32", action="store_true", help="compute in float32, also where the device computes bfloat16 fast")
    add("--accelerator", default="auto", metavar="NAME", help="auto, cpu, gpu or mps (default: auto)")


def run(args: argparse.Namespace, console: Console) -> int:
    """Train to the end, and write the weights."""
    from ..models.catalogue import resolve
    from ..multimodal.flow_file import save_flows
    from ..training.pretrain.translation import TranslationConfig, pretrain_translation

    usual = TranslationConfig(seed=args.seed, float32=args.float32, invariant_weight=args.invariant_weight)
    config = _preset(usual, PRESETS[args.preset]["translate"])
    given = {"steps": args.steps, "learning_rate": args.learning_rate}
    loop = replace(config.loop, **{name: value for name, value in given.items() if value is not None})
    config = replace(config, loop=loop, batch=args.batch or config.batch)
    trained = pretrain_translation(
        args.datalist, args.cts, args.output, config,
        initial=args.initial, trunk=resolve(args.trunk)[1] if args.trunk else None, encoders=args.encoders,
        accelerator=args.accelerator, report=console.note, cancel=console.cancel,
    )  # fmt: skip
    if trained is None:  # one process speaks for all
        return 0
    path = args.output / "translate.safetensors"
    digest, facts = save_flows(path, trained), trained.facts or {}
    if facts["steps"] < config.loop.steps:
        console.note(f"Stopped after step {facts['steps']} of {config.loop.steps}; the same command continues.")
        raise Cancelled()
    answer = {"status": "done", "output": str(path), "sha256": digest, **facts}
    console.answer(answer, f"{path}: {facts['steps']} steps on {facts['pairs']} pairs.\nSHA-256 {digest}")
    return 0


def _preset(config: Any, changes: dict[str, Any]) -> Any:
    """The settings with those of a preset, which may be parts of parts."""
    parts = {
        name: replace(getattr(config, name), **change) if isinstance(change, dict) else change
        for name, change in changes.items()
    }
    return replace(config, **parts)
