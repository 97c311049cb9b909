"""Pre-training of the prior on prepared cases."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ...conditioning.condition import EncodedCondition
from ...core.errors import DeviceError, InputError
from ...datasets.prepared_cases import Case, open_cases
from ...models.checkpoint import build_denoiser, load_denoiser, read_header, save_model
from ...networks.unet import NetworkConfig
from ..batches import Batch, ProcessShare, TrainingWindows, collate, leave_signals_to_the_loop
from ..loop import LoopConfig, TrainingLoop
from ..loss_plot import draw_curves, read_table
from ..noise import NoiseConfig, balance, draw_noise
from ..throughput import Pace, Throughput, matrix_rate, step_flops
from ..windows import WindowConfig

VALIDATION_SIGMAS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 3.0)
VALIDATION_WINDOWS = 16


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that decides what is trained; written into the run folder and into the weights.

    Attributes:
        batch: global batch size, divided among the processes.
        denoiser: "edm" or "cosine-epsilon".
    """

    batch: int = 4
    seed: int = 0
    denoiser: str = "edm"
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
        report, warn: called by the first process, see :class:`training.throughput.Throughput`.

    Returns:
        Path of the EMA weights in half precision; they say after how many steps they were taken, fewer than asked
        for where SIGINT or SIGTERM ended the run.

    Raises:
        InputError: no training cases, or ``folder`` holds a run with other settings.
        ModelError: weights or checkpoint do not fit, or the loss is no longer finite.
        DeviceError: no such accelerator.
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
    batches = Batches(cases, config, fabric, workers)
    step_module: nn.Module = _LossModule(module, bfloat16)
    if compile_network:
        module.network = cast(nn.Module, torch.compile(cast(nn.Module, module.network)))
    validation = open_cases(cache, "validation")
    loop = TrainingLoop(
        step_module, batches.loss, Validation(validation, config) if validation else None, config.loop, folder, fabric,
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
        flops = step_flops(lambda: _LossModule(build_denoiser(config.model_config()), False), share, size)
        return flops, matrix_rate(fabric.device, torch.bfloat16 if bfloat16 else torch.float32)

    return Throughput(config.loop, folder, fabric, config.batch, measure, report, warn)


def _start(initial: Path | None, config: PretrainConfig) -> nn.Module:
    """The denoiser before the first step."""
    if initial is None:
        return build_denoiser(config.model_config())
    header = read_header(initial)
    described, wanted = header["config"], json.loads(json.dumps(config.model_config()))
    if any(described.get(key) != wanted[key] for key in ("network", "denoiser")):
        raise InputError(
            f"{initial.name} holds another network or denoiser than the settings ask for.",
            "Leave those settings out, or start from random weights.",
        )
    return load_denoiser(initial, header)


def denoiser_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """State dict of the bare denoiser inside the wrappers of compilation and loss."""
    return {n.removeprefix("denoiser.").replace("_orig_mod.", ""): t for n, t in module.state_dict().items()}


class _LossModule(nn.Module):
    """Forward returns the loss, so that one compiled or distributed call holds the whole step."""

    def __init__(self, denoiser: nn.Module, in_bfloat16: bool) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.in_bfloat16 = in_bfloat16

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
        with torch.autocast(x0.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            losses = self.denoiser.loss(x0, sigma, noise, condition)  # type: ignore[operator]
        return (losses * balance).mean()


class Batches:
    """This process' share of each global batch, in order, drawn ahead by worker processes if there are any."""

    def __init__(self, cases: list[Case], config: PretrainConfig, fabric: Any, workers: int) -> None:
        if config.batch % fabric.world_size:
            raise InputError(f"A batch of {config.batch} cannot be divided among {fabric.world_size} processes.")
        self.cases, self.config, self.fabric, self.workers = cases, config, fabric, workers
        self._iterator: Iterator[Batch] = iter(())
        self._loop: TrainingLoop | None = None

    def start(self, step: int, loop: TrainingLoop | None) -> None:
        """Begin at an optimizer step of a loop, which is told how long it waits for data."""
        left = self.config.loop.steps - step
        windows = TrainingWindows(
            self.cases, self.config.windows, self.config.seed, step * self.config.batch, left * self.config.batch
        )
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
        x0, condition, purposes = next(self._iterator)
        if self._loop is not None:
            self._loop.data_wait += time.perf_counter() - waited
        levels, noises = [], []
        for n, purpose in enumerate(purposes):
            # A generator for each sample of the global batch: its noise is the same however the batch is divided.
            sample = (self.config.seed * 1_000_003 + step) * self.config.batch + self.fabric.global_rank * len(x0) + n
            generator = torch.Generator().manual_seed(sample)
            level, noise = draw_noise(x0.shape[1:], purpose, self.config.noise, generator)  # type: ignore[arg-type]
            levels.append(level)
            noises.append(noise)
        sigma = torch.stack(levels)
        edm = self.config.denoiser == "edm"  # the other loss is not weighted in the paper
        weights = balance(sigma, condition.has_hole()) if edm else torch.ones_like(sigma)
        parts = (condition.region, condition.channels, condition.expected, condition.hole)
        inputs = (x0, sigma, torch.stack(noises), *parts, weights)
        return module(*(cast(torch.Tensor, part).to(self.fabric.device) for part in inputs))


class Validation:
    """Error of x0 in HU (root mean square inside the body) by noise level on fixed windows of unseen patients.

    ``rmse_hu_at_*``: the whole window noised; ``rmse_hu_in_hole``: a hole at 3000 HU of noise, its surroundings known.
    """

    def __init__(self, cases: list[Case], config: PretrainConfig) -> None:
        self.plain = self._batches(cases, config, 0.0)
        self.holed = self._batches(cases, config, 1.0)

    @staticmethod
    def _batches(cases: list[Case], config: PretrainConfig, holes: float) -> list[Batch]:
        alike = replace(config.windows, fill_share=holes, denoise_share=0.0)
        windows = TrainingWindows(cases, alike, 12345, 0, VALIDATION_WINDOWS)
        return [collate([windows[n] for n in range(first, first + 4)]) for first in range(0, VALIDATION_WINDOWS, 4)]

    @torch.no_grad()
    def __call__(self, module: nn.Module) -> dict[str, float]:
        denoiser = cast(nn.Module, module.denoiser)
        figures = {f"rmse_hu_at_{sigma * 1000:g}": _error(denoiser, self.plain, sigma) for sigma in VALIDATION_SIGMAS}
        return {**figures, "rmse_hu_in_hole": _error(denoiser, self.holed, VALIDATION_SIGMAS[-1])}


def _error(denoiser: nn.Module, batches: list[Batch], sigma: float) -> float:
    """Root mean square error of x0 in HU over the body voxels that count."""
    device = next(denoiser.parameters()).device
    generator = torch.Generator().manual_seed(7)
    squared, count = 0.0, 0.0
    for x0, condition, _ in batches:
        x = (x0 + sigma * torch.randn(x0.shape, generator=generator)).to(device)
        level = torch.full((len(x0),), sigma, device=device)
        with torch.autocast(device.type, torch.bfloat16):
            error = denoiser(x, level, condition.to(device)).float().cpu() - x0
        judged = x0 > -0.5
        if condition.hole is not None:
            judged &= condition.hole > 0
        squared += float(error.square()[judged].sum())
        count += float(judged.sum())
    return round(1000 * (squared / max(count, 1.0)) ** 0.5, 2)
