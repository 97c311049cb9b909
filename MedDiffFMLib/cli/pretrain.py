"""``meddifffm pretrain CACHE``: train a prior, or continue its training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import Cancelled, InputError
from ..diffusion.kinds import DENOISER_KINDS
from ..networks.registry import NETWORKS
from ..training.pretrain.presets import PRESETS, preset
from .arguments import PROCESSES, SEED, add_command
from .console import Console, duration
from .key_values import options
from .slurm import add_slurm_options, submit

if TYPE_CHECKING:
    from ..networks.backbone import BackboneConfig
    from ..networks.unet import NetworkConfig
    from ..training.pretrain.config import PretrainConfig
    from ..training.throughput import Pace

WEIGHTINGS = ("set", "learned")
OPTIMIZERS = ("adamw", "muon")
LOGGERS = ("tensorboard", "mlflow")


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-command."""
    parser = add_command(
        subparsers,
        common,
        "pretrain",
        run,
        "Train a prior on prepared CTs.",
        "The same command continues a run that was stopped or killed, on the same curve. "
        "FOLDER receives model.safetensors, losses.csv, validation.csv (error by noise level), throughput.csv, "
        "curves.png and last.pt. Under torchrun, its processes share the work.",
    )
    add = parser.add_argument
    add("cache", type=Path, help="folder made by `meddifffm prepare`")
    add("-o", "--output", type=Path, required=True, metavar="FOLDER", help="folder of the run")
    add("--config", choices=PRESETS, default="starter-ct",
        help="recipe whose values the other options replace: ours, or the paper's (default: %(default)s)")  # fmt: skip
    add("--steps", type=positive, metavar="N", help="optimizer steps in all (starter-ct: 100000)")
    add("--batch", type=positive, metavar="N", help="windows a step, all devices (starter-ct: 4)")
    add("--learning-rate", type=float, metavar="X", help="at its peak (starter-ct: 0.0004)")
    add("--seed", type=SEED, default=0, metavar="N", help="of weights, windows and noise (default: %(default)s)")
    add(
        "--initial",
        metavar="WEIGHTS",
        help="start from a model (name or .safetensors); its network is kept, or grown by more --blocks",
    )
    add("--denoiser", choices=DENOISER_KINDS, help="what the network predicts (starter-ct: edm)")
    sentences = " ".join(f"{name}: {row.sentence}" for name, row in NETWORKS.items())
    add("--network", choices=NETWORKS, help=f"kind of network (all recipes: prior-unet). {sentences}")
    add("--network-option", action="append", metavar="KEY=VALUE", help="field of its config, VALUE as JSON or a word")
    add(
        "--channels", type=positive, nargs="+", metavar="N", help="of each level of the network (starter-ct: 32 64 128)"
    )
    add("--blocks", type=positive, nargs="+", metavar="N",
        help="residual blocks of all levels, or of each (starter-ct: 1 2 3)")  # fmt: skip
    add("--weighting", choices=WEIGHTINGS, help="of noise levels in the loss (starter-ct: learned)")
    add("--optimizer", choices=OPTIMIZERS, help="AdamW, or Muon for the convolutions of the body (starter-ct: adamw)")
    add("--averages", type=float, nargs="*", metavar="WIDTH",
        help="relative widths of the weight averages that are kept for `meddifffm average`; without any, one "
        "exponential average (starter-ct: 0.05 0.1)")  # fmt: skip
    add("--snapshot-every", type=positive, metavar="N", help="steps between snapshots of the averages (default: 1000)")
    add("--validation-windows", type=positive, metavar="N", help="of each kind (default: 128)")
    add("--window", type=positive, metavar="N", help="edge of a window in voxels (starter-ct: 64)")
    add("--accelerator", default="auto", metavar="NAME", help="auto, cpu, gpu or mps (default: auto)")
    add("--devices", type=positive, default=1, metavar="N", help="devices a node (default: %(default)s)")
    add("--nodes", type=positive, default=1, metavar="N", help="computers (default: %(default)s)")
    add("--workers", type=PROCESSES, default=0, metavar="N",
        help="processes that draw windows, each device (default: %(default)s)")  # fmt: skip
    add("--windows-on-device", action="store_true",
        help="keep the cases in the GPU's memory and draw windows and noise there: for a GPU that the processors "
        "cannot feed")  # fmt: skip
    add("--float32", action="store_true", help="compute in float32, also where the device computes bfloat16 fast")
    add("--compile", action="store_true", help="compile the network; pays from some thousand steps on")
    add("--checkpoint-every", type=positive, default=100, metavar="N", help="steps (default: %(default)s)")
    add("--validate-every", type=positive, default=250, metavar="N", help="steps (default: %(default)s)")
    add("--log-every", type=positive, default=50, metavar="N", help="steps between lines of progress (default: 50)")
    add("--logger", choices=LOGGERS,
        help="show the curves in TensorBoard, which reads FOLDER/tensorboard, or in MLflow, at MLFLOW_TRACKING_URI or "
        "else in FOLDER/mlflow.db")  # fmt: skip
    add_slurm_options(parser)


def positive(text: str) -> int:
    """A whole number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def run(args: argparse.Namespace, console: Console) -> int:
    """Train to the end; 130 where the user stopped it."""
    if args.slurm is not None:
        return submit(args, args.output, console)
    from ..core.file_hash import file_sha256
    from ..models.catalogue import resolve
    from ..models.checkpoint import read_header
    from ..training.fabric import rank_zero_only
    from ..training.pretrain.run import pretrain

    initial = resolve(args.initial)[1] if args.initial else None
    header = read_header(initial) if initial else None
    config = settings(args, header)
    path = pretrain(
        args.cache,
        args.output,
        config,
        initial=initial,
        accelerator=args.accelerator,
        devices=args.devices,
        nodes=args.nodes,
        bfloat16=not args.float32,
        workers=args.workers,
        compile_network=args.compile,
        windows_on_device=args.windows_on_device,
        report=lambda pace: console.note(pace_text(pace)),
        warn=console.warning,
        cancel=console.cancel,
        logger=args.logger,
    )
    if getattr(rank_zero_only, "rank", 0):  # one process speaks for all
        return 0
    steps = read_header(path)["config"]["training"]["steps"]
    if steps < config.loop.steps:
        console.note(f"Stopped after step {steps} of {config.loop.steps}; the same command continues.")
        raise Cancelled()
    answer = {"status": "done", "output": str(path), "steps": steps, "sha256": file_sha256(path)}
    console.answer(answer, f"{path}: trained for {steps} steps.\nSHA-256 {answer['sha256']}")
    return 0


def pace_text(pace: Pace) -> str:
    """A line of progress."""
    return (
        f"step {pace.step} of {pace.steps}  loss {pace.loss:.4f}  {pace.windows_per_second:.3g} windows/s  "
        f"{pace.data_wait:.0%} waiting for data  {pace.utilisation:.1%} of the matrix rate  "
        f"{duration(pace.seconds_left)} left"
    )


def settings(args: argparse.Namespace, header: dict[str, Any] | None) -> PretrainConfig:
    """The run's settings.

    Args:
        header: of the weights to start from; they decide about the network.

    Raises:
        InputError: a network that cannot be built, or options that contradict the weights.
    """
    from dataclasses import replace

    if (args.learning_rate is not None and args.learning_rate <= 0) or args.workers < 0 or args.seed < 0:
        raise InputError(
            "Learning rate, workers or seed is out of range.", "Give a learning rate above 0, and no negative numbers."
        )
    recipe = preset(args.config)
    steps = args.steps or recipe.loop.steps
    loop = replace(
        recipe.loop,
        steps=steps,
        learning_rate=args.learning_rate or recipe.loop.learning_rate,
        warmup=min(recipe.loop.warmup, max(steps // 10, 1)),
        checkpoint_every=args.checkpoint_every,
        validate_every=args.validate_every,
        log_every=args.log_every,
        widths=recipe.loop.widths if args.averages is None else tuple(args.averages),
        snapshot_every=args.snapshot_every or recipe.loop.snapshot_every,
        optimizer=args.optimizer or recipe.loop.optimizer,
    )
    _check_widths(loop.widths)
    if header is None:
        network, denoiser = _network(args, recipe.network), args.denoiser or recipe.denoiser
    else:
        network, denoiser = _of_weights(args, recipe.network, header["config"])
    windows = replace(recipe.windows, size=args.window or recipe.windows.size)
    _check_network(network, windows.size)
    return replace(
        recipe,
        batch=args.batch or recipe.batch,
        seed=args.seed,
        denoiser=denoiser,
        network=network,
        windows=windows,
        loop=loop,
        weighting=args.weighting or recipe.weighting,
        validation_windows=args.validation_windows or recipe.validation_windows,
    )


def _network(args: argparse.Namespace, recipe: BackboneConfig) -> BackboneConfig:
    """The recipe's network with other sizes; other numbers of levels have attention in the middle only."""
    from ..networks.unet import NetworkConfig

    usual: dict[str, Any] = {}
    if args.network in (None, recipe.name):
        usual = recipe.as_dict()
        if isinstance(recipe, NetworkConfig) and args.channels and len(args.channels) != len(recipe.channels):
            usual["attention"] = [False] * len(args.channels)
            usual["blocks"] = recipe.blocks if isinstance(recipe.blocks, int) else 1
    sizes = {"channels": args.channels, "blocks": _blocks(args)}
    asked = {name: value for name, value in sizes.items() if value}
    return _made(args.network or recipe.name, {**usual, **options(args.network_option), **asked})


def _made(name: str, fields: dict[str, Any]) -> BackboneConfig:
    """Config of a network by name.

    Raises:
        InputError: it has no such field, or cannot be built so.
    """
    try:
        config = NETWORKS[name].make_config(fields)
        config.check()
        return config
    except (TypeError, ValueError) as error:
        raise InputError(
            f"The network {name} cannot be built so ({error}).", "Give sizes that fit, such as one --blocks."
        ) from error


def _of_weights(args: argparse.Namespace, recipe: BackboneConfig, config: dict[str, Any]) -> tuple[BackboneConfig, str]:
    """Network and denoiser that go on from existing weights.

    The U-Net grows by the blocks that are asked for, and learns to take what the recipe gives it.
    """
    from dataclasses import replace

    from ..networks.registry import network_config
    from ..networks.unet import NetworkConfig
    from ..training.pretrain.grow import check_growth

    small = network_config(config)
    known = {"network": small.name, "denoiser": config["denoiser"]}
    known["channels"] = list(getattr(small, "channels", ()))
    for name, value in known.items():
        if getattr(args, name) not in (None, value):
            raise InputError(f"--{name} contradicts the weights of --initial ({value}).", "Leave it out.")
    if args.network_option or not (isinstance(small, NetworkConfig) and isinstance(recipe, NetworkConfig)):
        if args.network_option or args.blocks:
            raise InputError("The network of --initial has its sizes already.", "Leave the other ones out.")
        return small, config["denoiser"]
    blocks = _blocks(args) or small.blocks
    large = replace(small, blocks=blocks, tissue=small.tissue or recipe.tissue)
    check_growth(small, large)
    return large, config["denoiser"]


def _blocks(args: argparse.Namespace) -> int | tuple[int, ...] | None:
    """Residual blocks as they were asked for."""
    if not args.blocks:
        return None
    return args.blocks[0] if len(args.blocks) == 1 else tuple(args.blocks)


def _check_widths(widths: tuple[float, ...]) -> None:
    """Refuse widths that no power function has."""
    from ..training.averages import gamma_of

    for width in widths:
        try:
            gamma_of(width)
        except ValueError as error:
            raise InputError(f"--averages: {error}.", "Give two widths such as 0.05 0.1.") from error


def _check_network(network: BackboneConfig, window: int) -> None:
    """Refuse sizes that the network cannot be built or run with."""
    from ..networks.unet import NetworkConfig

    if isinstance(network, NetworkConfig):
        _check_channels(network)
    if window % network.divisor:
        raise InputError(
            f"A window of {window} voxels cannot be halved often enough.", f"Give a multiple of {network.divisor}."
        )


def _check_channels(network: NetworkConfig) -> None:
    """Refuse channels and blocks that group normalization and attention cannot have."""
    heads = 4 * network.groups
    attended = [c for c, attention in zip(network.channels, network.attention, strict=True) if attention]
    if any(c % network.groups for c in network.channels) or any(c % heads for c in (*attended, network.channels[-1])):
        raise InputError(
            f"Channels {' '.join(map(str, network.channels))} cannot be built.",
            f"Give multiples of {network.groups}; the last one, and those with attention, multiples of {heads}.",
        )
