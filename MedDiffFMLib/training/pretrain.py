"""Pre-training of the prior on prepared cases."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ..conditioning.condition import EncodedCondition
from ..errors import DeviceError, InputError
from ..foreign import read_json
from ..models.checkpoint import build_denoiser, load_denoiser, read_header, save_model
from ..networks.unet import NetworkConfig
from .batches import Batch, ProcessShare, TrainingWindows, collate, leave_signals_to_the_loop
from .cache import Case, open_cases
from .curves import draw_curves, read_table
from .grow import grow
from .level_weighting import LevelWeighting
from .loop import LoopConfig, TrainingLoop
from .noise import NoiseConfig, balance
from .throughput import Pace, Throughput, matrix_rate, step_flops
from .validation import Validation
from .windows import WindowConfig


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that decides what is trained; written into the run folder and into the weights.

    Attributes:
        batch: global batch size, divided among the processes.
        validation_windows: of each kind, see :class:`.validation.Validation`.
        denoiser: "edm" or "cosine-epsilon".
        weighting: of noise levels in the loss: "set" by what a trained prior leaves, or "learned" on top of that.
    """

    batch: int = 4
    seed: int = 0
    validation_windows: int = 128
    denoiser: str = "edm"
    weighting: str = "set"
    network: NetworkConfig = field(default_factory=NetworkConfig)
    windows: WindowConfig = field(default_factory=WindowConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def model_config(self) -> dict[str, Any]:
        """What the weight file says of itself."""
        return {"network": self.network.as_dict(), "denoiser": self.denoiser, "window": self.windows.size}


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
) -> Path:
    """Train, or continue what ``folder`` holds, and write ``folder/model.safetensors``.

    Args:
        cache: folder made by ``meddifffm prepare``.
        initial: weights to start from instead of random ones.
        bfloat16: compute the network in bfloat16, weights and loss in float32.
        workers: processes that draw windows; 0 draws them in the training process.
        compile_network: torch.compile; pays from some thousand steps on.
        windows_on_device: keep the cases in the device's memory and draw windows, holes and noise there.
        report, warn: called by the first process, see :class:`.throughput.Throughput`.

    Returns:
        Path of the EMA weights in half precision; they say after how many steps they were taken, fewer than asked
        for where SIGINT or SIGTERM ended the run.

    Raises:
        InputError: no training cases, or ``folder`` holds a run with other settings.
        ModelError: weights or checkpoint do not fit, or the loss is no longer finite.
        DeviceError: no such accelerator, or it does not hold the cases.
    """
    folder = Path(folder)
    check_same_run(folder, config)
    fabric = launch(accelerator, devices, nodes)
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
        step_module, batches.loss, _validation(validation, config, bfloat16), config.loop, folder, fabric,
        _observer(config, folder, fabric, bfloat16, report, warn),
    )  # fmt: skip
    loop.resume()
    if fabric.global_rank == 0:
        (folder / "config.json").write_text(json.dumps(asdict(config), indent=1), encoding="utf-8")
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
    fabric.barrier()
    return path


def _batches(
    cases: list[Case], config: PretrainConfig, fabric: Any, workers: int, on_device: bool, compiled: bool
) -> Batches:
    """Who draws the windows."""
    if not on_device:
        return Batches(cases, config, fabric, workers)
    from .device_batches import DeviceBatches

    return DeviceBatches(cases, config, fabric, workers, compiled and fabric.device.type == "cuda")


def run_config(folder: Path) -> PretrainConfig:
    """Settings of the run in a folder.

    Raises:
        InputError: there is none.
    """
    parts = {"network": NetworkConfig, "windows": WindowConfig, "noise": NoiseConfig, "loop": LoopConfig}
    try:
        record = read_json(folder / "config.json")
        inner = {name: kind(**_tuples(record[name])) for name, kind in parts.items()}
        return PretrainConfig(**{**record, **inner})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"'{folder}' holds no run of `meddifffm pretrain` ({error}).", "Name the run's folder."
        ) from error


def _tuples(record: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists as the tuples that they were."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}


def check_same_run(folder: Path, config: Any) -> None:
    """Refuse to continue a run with other settings; length and pace may change.

    Args:
        config: dataclass of the settings, with length and pace under ``loop``.

    Raises:
        InputError: names the settings that differ.
    """
    try:
        before = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if not (folder / "last.pt").exists():
        return
    now = json.loads(json.dumps(asdict(config)))
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


def launch(accelerator: str, devices: int | str, nodes: int) -> Any:
    """Fabric with its processes started; under torchrun those that it started, whatever ``devices`` and ``nodes``."""
    from lightning.fabric import Fabric

    if torch.distributed.is_available() and torch.distributed.is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    try:
        # Fabric's own bf16-mixed rounds the inputs to bfloat16, several HU in bone and air; the loss module casts.
        fabric = Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, precision="32-true")
    except (RuntimeError, ValueError) as error:
        raise DeviceError(
            f"Training on {devices} x {accelerator!r} is not possible ({str(error).rstrip('.')}).",
            "Use --accelerator auto or cpu, or fewer --devices.",
        ) from error
    fabric.launch()
    return fabric


def _observer(
    config: PretrainConfig, folder: Path, fabric: Any, bfloat16: bool, report: Callable[[Pace], None],
    warn: Callable[[str], None],
) -> Throughput:  # fmt: skip
    """Measures the run."""

    def measure() -> tuple[int, float]:
        share, size = config.batch // fabric.world_size, config.windows.size
        flops = step_flops(lambda: LossModule(build_denoiser(config.model_config()), False), share, size)
        return flops, matrix_rate(fabric.device, torch.bfloat16 if bfloat16 else torch.float32)

    return Throughput(config.loop, folder, fabric, config.batch, measure, report, warn)


def _validation(cases: list[Case], config: PretrainConfig, bfloat16: bool) -> Validation | None:
    """What judges the run on the cases that were held out, if there are any."""
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
    small, denoiser = NetworkConfig(**_tuples(described["network"])), load_denoiser(initial, header)
    if small == config.network:
        return denoiser
    larger = build_denoiser(config.model_config())
    grow(denoiser.state_dict(), small, config.network, larger)
    return larger


def denoiser_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """State dict of the bare denoiser inside the wrappers of compilation and loss."""
    return bare_denoiser(module.state_dict())


def bare_denoiser(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What of a loss module's state belongs to the denoiser, under the denoiser's names."""
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
        signature: torch.Tensor,
        balance: torch.Tensor,
    ) -> torch.Tensor:
        condition = EncodedCondition(region, channels, expected, hole, signature=signature)
        with torch.autocast(x0.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            losses = self.denoiser.loss(x0, sigma, noise, condition)  # type: ignore[operator]
        losses = losses * balance
        if self.weighting is not None:
            losses = self.weighting(losses, sigma, condition.has_hole())
        return losses.mean()


class Batches:
    """This process' share of each global batch, in order, drawn ahead by worker processes if there are any."""

    def __init__(self, cases: list[Case], config: PretrainConfig, fabric: Any, workers: int) -> None:
        if config.batch % fabric.world_size:
            raise InputError(f"A batch of {config.batch} cannot be divided among {fabric.world_size} processes.")
        self.cases, self.config, self.fabric, self.workers = cases, config, fabric, workers
        self._iterator: Iterator[Batch] = iter(())
        self._loop: TrainingLoop | None = None

    @property
    def noise_seed(self) -> int:
        """The noise of sample n depends on this + n."""
        return self.config.seed * 1_000_003 * self.config.batch

    def start(self, step: int, loop: TrainingLoop | None) -> None:
        """Begin at an optimiser step of a loop, which is told how long it waits for data."""
        left = self.config.loop.steps - step
        windows = TrainingWindows(
            self.cases, self.config.windows, self.config.seed, step * self.config.batch, left * self.config.batch,
            self.config.noise, self.noise_seed,
        )  # fmt: skip
        mine = ProcessShare(self.config.batch, self.fabric.world_size, self.fabric.global_rank, left)
        loader = torch.utils.data.DataLoader(
            windows, batch_sampler=mine, collate_fn=collate, num_workers=self.workers,
            prefetch_factor=4 if self.workers else None, worker_init_fn=leave_signals_to_the_loop,
        )  # fmt: skip
        self._iterator = iter(loader)
        self._loop = loop

    def close(self) -> None:
        """End the worker processes, which do not listen to signals."""
        self._iterator = iter(())

    def loss(self, module: nn.Module, step: int) -> torch.Tensor:
        """Mean loss of this process' share of global step ``step``."""
        waited = time.perf_counter()
        x0, condition, _, sigma, noise = next(self._iterator)
        assert sigma is not None and noise is not None
        if self._loop is not None:
            self._loop.data_wait += time.perf_counter() - waited
        edm = self.config.denoiser == "edm"  # the other loss is not weighted in the paper
        weights = balance(sigma, condition.has_hole()) if edm else torch.ones_like(sigma)
        parts = (condition.region, condition.channels, condition.expected, condition.hole, condition.signature)
        inputs = (x0, sigma, noise, *parts, weights)
        return module(*(cast(torch.Tensor, part).to(self.fabric.device) for part in inputs))
