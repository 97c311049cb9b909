"""``meddifffm pretrain CACHE``: train a prior, or continue its training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Cancelled, InputError
from .console import Console

if TYPE_CHECKING:
    from ..networks.unet import NetworkConfig
    from ..training.pretrain import PretrainConfig

CHANNELS = (32, 64, 128)
DENOISERS = ("edm", "cosine-epsilon")


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-command."""
    sentence = "Train a prior on prepared CTs."
    parser = subparsers.add_parser(
        "pretrain", parents=[common], help=sentence,
        description=f"{sentence} The same command continues a run that was stopped or killed, on the same curve. "
        "FOLDER receives model.safetensors, losses.csv, validation.csv (error by noise level) and last.pt.",
    )  # fmt: skip
    add = parser.add_argument
    add("cache", type=Path, help="folder made by `meddifffm prepare`")
    add("-o", "--output", type=Path, required=True, metavar="FOLDER", help="folder of the run")
    add("--steps", type=positive, default=4000, metavar="N", help="optimizer steps in all (default: %(default)s)")
    add("--batch", type=positive, default=4, metavar="N", help="windows a step, all devices (default: %(default)s)")
    add("--learning-rate", type=float, default=4e-4, metavar="X", help="at its peak (default: %(default)g)")
    add("--seed", type=int, default=0, metavar="N", help="of weights, windows and noise (default: %(default)s)")
    add("--initial", metavar="WEIGHTS", help="start from a model (name or .safetensors), whose network is kept")
    add("--denoiser", choices=DENOISERS, help=f"what the network predicts (default: {DENOISERS[0]})")
    add("--channels", type=positive, nargs="+", metavar="N",
        help=f"of each level of the network (default: {' '.join(map(str, CHANNELS))})")  # fmt: skip
    add("--blocks", type=positive, metavar="N", help="residual blocks a level (default: 1)")
    add("--window", type=positive, default=64, metavar="N", help="edge of a window in voxels (default: %(default)s)")
    add("--accelerator", default="auto", metavar="NAME", help="auto, cpu, gpu or mps (default: auto)")
    add("--devices", type=positive, default=1, metavar="N", help="devices a node (default: %(default)s)")
    add("--nodes", type=positive, default=1, metavar="N", help="computers (default: %(default)s)")
    add("--workers", type=int, default=0, metavar="N", help="processes that draw windows (default: %(default)s)")
    add("--compile", action="store_true", help="compile the network; pays from some thousand steps on")
    add("--checkpoint-every", type=positive, default=100, metavar="N", help="steps (default: %(default)s)")
    add("--validate-every", type=positive, default=250, metavar="N", help="steps (default: %(default)s)")
    parser.set_defaults(run=run)


def positive(text: str) -> int:
    """A whole number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def run(args: argparse.Namespace, console: Console) -> int:
    """Train to the end; 130 where the user stopped it."""
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    from ..models.catalogue import resolve
    from ..models.checkpoint import file_sha256, read_header
    from ..training.pretrain import pretrain

    initial = resolve(args.initial)[1] if args.initial else None
    header = read_header(initial) if initial else None
    config = settings(args, header)
    path = pretrain(
        args.cache, args.output, config, initial=initial, accelerator=args.accelerator, devices=args.devices,
        nodes=args.nodes, workers=args.workers, compile_network=args.compile,
    )  # fmt: skip
    if getattr(rank_zero_only, "rank", 0):  # one process speaks for all
        return 0
    steps = read_header(path)["config"]["training"]["steps"]
    if steps < args.steps:
        console.note(f"Stopped after step {steps} of {args.steps}; the same command continues.")
        raise Cancelled()
    answer = {"status": "done", "output": str(path), "steps": steps, "sha256": file_sha256(path)}
    console.answer(answer, f"{path}: trained for {steps} steps.\nSHA-256 {answer['sha256']}")
    return 0


def settings(args: argparse.Namespace, header: dict[str, Any] | None) -> PretrainConfig:
    """The run's settings.

    Args:
        header: of the weights to start from; they decide about the network.

    Raises:
        InputError: a network that cannot be built, or options that contradict the weights.
    """
    from ..networks.unet import NetworkConfig
    from ..training.loop import LoopConfig
    from ..training.pretrain import PretrainConfig
    from ..training.windows import WindowConfig

    if args.learning_rate <= 0 or args.workers < 0 or args.seed < 0:
        raise InputError("Learning rate, workers or seed is out of range.",
                         "Give a learning rate above 0, and no negative numbers.")  # fmt: skip
    loop = LoopConfig(
        steps=args.steps, learning_rate=args.learning_rate, warmup=min(100, max(args.steps // 10, 1)),
        checkpoint_every=args.checkpoint_every, validate_every=args.validate_every,
    )  # fmt: skip
    if header is None:
        channels = tuple(args.channels or CHANNELS)
        network = NetworkConfig(channels=channels, blocks=args.blocks or 1, attention=(False,) * len(channels))
        denoiser = args.denoiser or DENOISERS[0]
    else:
        network, denoiser = _of_weights(args, header["config"])
    _check_network(network, args.window)
    return PretrainConfig(
        batch=args.batch, seed=args.seed, denoiser=denoiser, network=network, windows=WindowConfig(size=args.window),
        loop=loop,
    )  # fmt: skip


def _of_weights(args: argparse.Namespace, config: dict[str, Any]) -> tuple[NetworkConfig, str]:
    """Network and denoiser of existing weights."""
    from ..networks.unet import NetworkConfig

    known = {"channels": list(config["network"]["channels"]), "blocks": config["network"]["blocks"],
             "denoiser": config["denoiser"]}  # fmt: skip
    for name, value in known.items():
        if getattr(args, name) not in (None, value):
            raise InputError(f"--{name} contradicts the weights of --initial ({value}).", "Leave it out.")
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config["network"].items()}
    return NetworkConfig(**fields), config["denoiser"]


def _check_network(network: NetworkConfig, window: int) -> None:
    """Refuse sizes that the network cannot be built or run with."""
    heads = 4 * network.groups
    if any(c % network.groups for c in network.channels) or network.channels[-1] % heads:
        raise InputError(
            f"Channels {' '.join(map(str, network.channels))} cannot be built.",
            f"Give multiples of {network.groups}, the last one a multiple of {heads}.",
        )
    if window % network.divisor:
        raise InputError(f"A window of {window} voxels cannot be halved often enough.",
                         f"Give a multiple of {network.divisor}.")  # fmt: skip
