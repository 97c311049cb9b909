"""Pre-training of the prior on prepared cases."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..conditioning.condition import EncodedCondition
from ..errors import InputError
from ..models.checkpoint import build_denoiser, load_denoiser, read_header, save_model
from ..networks.unet import NetworkConfig
from .batches import TrainingWindows, collate
from .cache import Case, open_cases
from .loop import LoopConfig, TrainingLoop
from .noise import NoiseConfig, draw_noise
from .windows import WindowConfig

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
) -> Path:
    """Train, or continue what ``folder`` holds, and write ``folder/model.safetensors``.

    Args:
        cache: folder made by ``meddifffm prepare``.
        initial: weights to start from instead of random ones.
        bfloat16: compute the network in bfloat16, weights and loss in float32.
        workers: processes that draw windows; 0 draws them in the training process.
        compile_network: torch.compile; pays from some thousand steps on.

    Returns:
        Path of the EMA weights in half precision.
    """
    from lightning.fabric import Fabric

    # Fabric's own bf16-mixed rounds the inputs to bfloat16, several HU in bone and air; the loss module casts inside.
    fabric = Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, precision="32-true")
    fabric.launch()
    folder = Path(folder)
    cases = open_cases(cache, "training")
    if not cases:
        raise InputError(f"{cache} holds no training cases.", "Run `meddifffm prepare` with a datalist first.")
    torch.manual_seed(config.seed)
    module = load_denoiser(initial, read_header(initial)) if initial else build_denoiser(config.model_config())
    module.requires_grad_(True).train()
    batches = Batches(cases, config, fabric, workers)
    step_module: nn.Module = _LossModule(module, bfloat16)
    if compile_network:
        module.network = torch.compile(module.network)
    validation = open_cases(cache, "validation")
    loop = TrainingLoop(
        step_module, batches.loss, Validation(validation, config) if validation else None, config.loop, folder, fabric
    )
    loop.resume()
    batches.start(loop.step, loop)
    if fabric.global_rank == 0:
        (folder / "config.json").write_text(json.dumps(asdict(config), indent=1, default=str))
    started = time.time()
    averaged = loop.run()
    path = folder / "model.safetensors"
    if fabric.global_rank == 0:
        trained = {"steps": loop.step, "samples": loop.step * config.batch, "seconds": round(time.time() - started)}
        save_model(path, denoiser_state(averaged), {**config.model_config(), "training": trained})
    return path


def denoiser_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """State dict of the bare denoiser inside the wrappers of compilation and loss."""
    return {n.removeprefix("denoiser.").replace("_orig_mod.", ""): t for n, t in module.state_dict().items()}


class _LossModule(nn.Module):
    """Forward returns the loss, so that one compiled or distributed call holds the whole step."""

    def __init__(self, denoiser: nn.Module, bfloat16: bool) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.bfloat16 = bfloat16

    def forward(
        self, x0: torch.Tensor, sigma: torch.Tensor, noise: torch.Tensor, region: torch.Tensor, channels: torch.Tensor
    ) -> torch.Tensor:
        with torch.autocast(x0.device.type, torch.bfloat16, enabled=self.bfloat16):
            return self.denoiser.loss(x0, sigma, noise, EncodedCondition(region, channels)).mean()  # type: ignore[operator]


class Batches:
    """This process' share of each global batch, in order, drawn ahead by worker processes if there are any."""

    def __init__(self, cases: list[Case], config: PretrainConfig, fabric: Any, workers: int) -> None:
        if config.batch % fabric.world_size:
            raise InputError(f"A batch of {config.batch} cannot be divided among {fabric.world_size} processes.")
        self.cases, self.config, self.fabric, self.workers = cases, config, fabric, workers
        self._iterator: Iterator[tuple[torch.Tensor, EncodedCondition]] = iter(())
        self._loop: TrainingLoop | None = None

    def start(self, step: int, loop: TrainingLoop) -> None:
        """Begin at an optimiser step."""
        share = self.config.batch // self.fabric.world_size
        first = step * self.config.batch
        windows = TrainingWindows(
            self.cases,
            self.config.windows,
            self.config.seed,
            first,
            (self.config.loop.steps - step) * self.config.batch,
        )
        mine = [
            list(
                range(
                    s * self.config.batch + self.fabric.global_rank * share,
                    s * self.config.batch + (self.fabric.global_rank + 1) * share,
                )
            )
            for s in range(self.config.loop.steps - step)
        ]
        loader = torch.utils.data.DataLoader(
            windows, batch_sampler=mine, collate_fn=collate, num_workers=self.workers,
            prefetch_factor=4 if self.workers else None,
        )  # fmt: skip
        self._iterator = iter(loader)
        self._loop = loop

    def loss(self, module: nn.Module, step: int) -> torch.Tensor:
        """Mean loss of this process' share of global step ``step``."""
        waited = time.perf_counter()
        x0, condition = next(self._iterator)
        if self._loop is not None:
            self._loop.data_wait += time.perf_counter() - waited
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        share, rank = len(x0), self.fabric.global_rank
        shape = (self.config.batch, *x0.shape[1:])
        sigma, noise = draw_noise(shape, self.config.noise, generator)  # type: ignore[arg-type]
        mine = slice(rank * share, (rank + 1) * share)
        device = self.fabric.device
        condition = condition.to(device)
        return module(
            x0.to(device), sigma[mine].to(device), noise[mine].to(device), condition.region, condition.channels
        )


class Validation:
    """Error of x0 in HU (root mean square inside the body) by noise level on fixed windows of unseen patients."""

    def __init__(self, cases: list[Case], config: PretrainConfig) -> None:
        windows = TrainingWindows(cases, config.windows, 12345, 0, VALIDATION_WINDOWS)
        self.batches = [
            collate([windows[n] for n in range(first, first + 4)]) for first in range(0, VALIDATION_WINDOWS, 4)
        ]

    @torch.no_grad()
    def __call__(self, module: nn.Module) -> dict[str, float]:
        denoiser = module.denoiser
        device = next(denoiser.parameters()).device
        figures = {}
        for sigma in VALIDATION_SIGMAS:
            generator = torch.Generator().manual_seed(7)
            squared, count = 0.0, 0.0
            for x0, condition in self.batches:
                noise = torch.randn(x0.shape, generator=generator)
                x = (x0 + sigma * noise).to(device)
                level = torch.full((len(x0),), sigma, device=device)
                with torch.autocast(device.type, torch.bfloat16):
                    error = denoiser(x, level, condition.to(device)).float().cpu() - x0
                body = x0 > -0.5
                squared += float(error.square()[body].sum())
                count += float(body.sum())
            figures[f"rmse_hu_at_{sigma * 1000:g}"] = round(1000 * (squared / max(count, 1.0)) ** 0.5, 2)
        return figures
