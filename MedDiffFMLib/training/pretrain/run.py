"""Pre-training of the prior on prepared cases."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ...conditioning.condition import EncodedCondition
from ...core.errors import DeviceError, InputError, ModelError
from ...core.precision import autocast, choose_precision
from ...core.progress import CancelToken
from ...core.safe_load import read_json
from ...datasets.prepared_cases import Case, open_cases
from ...models.checkpoint import build_denoiser, load_denoiser, read_header, save_model
from ...networks.registry import network_config
from ...networks.unet import NetworkConfig
from ..level_weighting import LevelWeighting
from ..loggers import make_logger
from ..loop import LoopConfig, TrainingLoop
from ..loss_plot import draw_curves, read_table
from ..noise import NoiseConfig
from ..throughput import Pace, Throughput, matrix_rate, step_flops
from ..validation import Validation
from ..windows import WindowConfig
from .batches import Batches
from .config import PretrainConfig
from .grow import grow


def pretrain(
    cache: Path,
    folder: Path,
    config: PretrainConfig,
    *,
    initial: Path | None = None,
    accelerator: str = "auto",
    devices: int | str = 1,
    nodes: int = 1,
    bfloat16: bool = True,
    workers: int = 0,
    compile_network: bool = False,
    windows_on_device: bool = False,
    report: Callable[[Pace], None] = lambda pace: None,
    warn: Callable[[str], None] = lambda sentence: None,
    cancel: CancelToken | None = None,
    logger: str | None = None,
) -> Path:
    """Train, or continue what ``folder`` holds, and write ``folder/model.safetensors``.

    Args:
        cache: folder made by ``meddifffm prepare``.
        initial: weights to start from instead of random ones.
        bfloat16: compute the network in bfloat16 where the device does that fast, weights and loss in float32; False
            for float32 in training and validation.
        workers: processes that draw windows; 0 draws them in the training process.
        compile_network: torch.compile; pays from some thousand steps on.
        windows_on_device: keep the cases in the device's memory and draw windows, holes and noise there.
        report, warn: called by the first process, see :class:`training.throughput.Throughput`.
        cancel: asks to save and stop, as SIGTERM and SIGINT do.
        logger: "tensorboard" or "mlflow", which gets the curves too, see :mod:`training.loggers`.

    Returns:
        Path of the EMA weights in half precision; they say after how many steps they were taken, fewer than asked
        for where SIGINT or SIGTERM ended the run.

    Raises:
        InputError: no training cases, or ``folder`` holds a run with other settings.
        ModelError: weights or checkpoint do not fit, or the loss is no longer finite.
        DeviceError: no such accelerator, or it does not hold the cases.
    """
    folder = Path(folder)
    check_same_run(folder, config.record())
    fabric = launch(accelerator, devices, nodes, make_logger(logger, folder))
    cases = open_cases(cache, "training")
    if not cases:
        raise InputError(f"{cache} holds no training cases.", "Run `meddifffm prepare` with a datalist first.")
    torch.manual_seed(config.seed)
    module = _start(initial, config)
    module.requires_grad_(True).train()
    # Else the gradient of every kernel is brought from one layout to the other: 9 % of a step on a CPU.
    module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    batches = _batches(cases, config, fabric, workers, windows_on_device, compile_network)
    step_module: nn.Module = LossModule(module, bfloat16, config.weighting)
    if compile_network:
        module.network = cast(nn.Module, torch.compile(cast(nn.Module, module.network)))
    validation = open_cases(cache, "validation")
    loop = TrainingLoop(
        step_module,
        batches.loss,
        _validation(validation, config, bfloat16),
        config.loop,
        folder,
        fabric,
        _observer(config, folder, fabric, bfloat16, report, warn, cancel),
    )
    loop.resume()
    if fabric.global_rank == 0:
        (folder / "config.json").write_text(json.dumps(config.record(), indent=1), encoding="utf-8")
        for used in fabric.loggers:
            used.log_hyperparams(config.record())
    try:
        batches.start(loop.step, loop)
        averaged = loop.run()
    finally:
        batches.close()
    path = folder / "model.safetensors"
    if fabric.global_rank == 0:
        seconds = read_table(folder / "losses.csv")["seconds"].sum()  # of all starts of the run
        trained = {"steps": loop.step, "samples": loop.step * config.batch, "seconds": round(float(seconds))}
        save_model(path, denoiser_state(averaged), {**config.model_config(), "training": trained})
        draw_curves(folder)
        finish(fabric, loop.step >= config.loop.steps)
    fabric.barrier()
    return path


def _batches(
    cases: list[Case], config: PretrainConfig, fabric: Any, workers: int, on_device: bool, compiled: bool
) -> Batches:
    """Stream of training windows."""
    if not on_device:
        return Batches(cases, config, fabric, workers)
    from .device_batches import DeviceBatches

    return DeviceBatches(cases, config, fabric, workers, compiled and fabric.device.type == "cuda")


def run_config(folder: Path) -> PretrainConfig:
    """Settings of the run in a folder.

    Raises:
        InputError: there is none.
    """
    parts = {"windows": WindowConfig, "noise": NoiseConfig, "loop": LoopConfig}
    try:
        record = read_json(folder / "config.json")
        inner: dict[str, Any] = {name: kind(**_tuples(record[name])) for name, kind in parts.items()}
        inner["network"] = network_config(record)
        record.pop("network_name", None)
        return PretrainConfig(**{**record, **inner})
    except (OSError, ValueError, KeyError, TypeError, ModelError) as error:
        raise InputError(
            f"'{folder}' holds no run of `meddifffm pretrain` ({error}).", "Name the run's folder."
        ) from error


def _tuples(record: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists as the tuples that they were."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}


def check_same_run(folder: Path, record: dict[str, Any]) -> None:
    """Refuse to continue a run with other settings; length and pace may change.

    Args:
        record: of the settings, with length and pace under ``loop``.

    Raises:
        InputError: names the settings that differ.
    """
    try:
        before = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if not (folder / "last.pt").exists():
        return
    now = json.loads(json.dumps(record))
    for part in (before, now):
        part.pop("loop", None)
    # A setting that only one of two versions knows cannot be compared.
    known = [name for name in now if name in before]
    different = [f"{n} {before[n]} instead of {now[n]}" for n in known if not _agree(before[n], now[n])]
    if different:
        raise InputError(
            f"The run in {folder} was started with {', '.join(different)}.",
            "Use the same settings to continue it, or another folder.",
        )


def _agree(before: Any, now: Any) -> bool:
    """Equal in every key that both have."""
    if isinstance(before, dict) and isinstance(now, dict):
        return all(_agree(before[key], now[key]) for key in before.keys() & now.keys())
    return bool(before == now)


LONGEST_WAIT = timedelta(hours=12)
"""Of processes for others that prepare or judge many cases; torchrun ends all at once where one of them fails."""


def launch(
    accelerator: str, devices: int | str, nodes: int, loggers: Sequence[Any] = (), *, partly: bool = False
) -> Any:
    """Fabric with its processes started; under torchrun those that it started, whatever ``devices`` and ``nodes``.

    Args:
        partly: some weights have no part in the loss of some steps, and processes may wait long for each other.
    """
    from ..fabric import DDPStrategy, Fabric

    if torch.distributed.is_available() and torch.distributed.is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    several = (devices, nodes) != (1, 1)
    shared: dict[str, Any] = (
        {"strategy": DDPStrategy(find_unused_parameters=True, timeout=LONGEST_WAIT)} if partly and several else {}
    )
    try:
        # Fabric's own bf16-mixed rounds the inputs to bfloat16, several HU in bone and air; the loss module casts.
        fabric = Fabric(
            accelerator=accelerator, devices=devices, num_nodes=nodes, precision="32-true", loggers=list(loggers),
            **shared,
        )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        raise DeviceError(
            f"Training on {devices} x {accelerator!r} is not possible ({str(error).rstrip('.')}).",
            "Use --accelerator auto or cpu, or fewer --devices.",
        ) from error
    fabric.launch()
    return fabric


def finish(fabric: Any, whole: bool) -> None:
    """Tell the loggers of a run that it has ended, or that it was stopped."""
    for used in fabric.loggers:
        used.finalize("success" if whole else "stopped")


def _observer(
    config: PretrainConfig,
    folder: Path,
    fabric: Any,
    bfloat16: bool,
    report: Callable[[Pace], None],
    warn: Callable[[str], None],
    cancel: CancelToken | None,
) -> Throughput:
    """Observer that measures the run."""

    def measure() -> tuple[int, float]:
        share, size = config.batch // fabric.world_size, config.windows.size
        flops = step_flops(lambda: LossModule(build_denoiser(config.model_config()), False), share, size)
        return flops, matrix_rate(fabric.device, choose_precision("auto" if bfloat16 else "float32", fabric.device))

    return Throughput(config.loop, folder, fabric, config.batch, measure, report, warn, cancel)


def _validation(cases: list[Case], config: PretrainConfig, bfloat16: bool) -> Validation | None:
    """Validation on the cases that were held out, if there are any."""
    if not cases:
        return None
    return Validation(cases, config, config.validation_windows, bfloat16=bfloat16)


def _start(initial: Path | None, config: PretrainConfig) -> nn.Module:
    """The denoiser before the first step."""
    if initial is None:
        return build_denoiser(config.model_config())
    header = read_header(initial)
    described = header["config"]
    if described.get("denoiser") != config.denoiser:
        raise InputError(f"{initial.name} was trained as {described.get('denoiser')}.", "Leave --denoiser out.")
    small, denoiser, network = network_config(described), load_denoiser(initial), config.network
    if small == network:
        return denoiser
    if not (isinstance(small, NetworkConfig) and isinstance(network, NetworkConfig)):
        raise InputError(
            f"{initial.name} holds another network than the settings ask for.",
            "Leave those settings out, or start from random weights.",
        )
    larger = build_denoiser(config.model_config())
    grow(denoiser.state_dict(), small, network, larger)
    return larger


def denoiser_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """State dict of the bare denoiser inside the wrappers of compilation and loss."""
    return bare_denoiser(module.state_dict())


def bare_denoiser(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Part of a loss module's state that belongs to the denoiser, under the denoiser's names."""
    plain = {name.replace("_orig_mod.", ""): tensor for name, tensor in state.items()}
    return {n.removeprefix("denoiser."): t for n, t in plain.items() if n.startswith("denoiser.")}


class LossModule(nn.Module):
    """Forward returns the loss, so that one compiled or distributed call holds the whole step."""

    def __init__(self, denoiser: nn.Module, in_bfloat16: bool, weighting: str = "set") -> None:
        super().__init__()
        self.denoiser = denoiser
        self.in_bfloat16 = in_bfloat16
        self.weighting = LevelWeighting() if weighting == "learned" else None

    def forward(
        self,
        x0: torch.Tensor,
        sigma: torch.Tensor,
        noise: torch.Tensor,
        region: torch.Tensor,
        channels: torch.Tensor,
        expected: torch.Tensor,
        hole: torch.Tensor,
        balance: torch.Tensor,
    ) -> torch.Tensor:
        condition = EncodedCondition(region, channels, expected, hole)
        with autocast(x0.device, "auto" if self.in_bfloat16 else "float32"):
            losses = self.denoiser.loss(x0, sigma, noise, condition)  # type: ignore[operator]
        losses = losses * balance
        if self.weighting is not None:
            losses = self.weighting(losses, sigma, condition.has_hole())
        return losses.mean()
