"""What the configuration of an exported MONAI Bundle names: its network, and the run over a folder of CTs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..conditioning.condition import Condition, stack
from ..core.errors import MedDiffFMError
from ..imaging.intensity import HU_LIMIT
from ..models.checkpoint import FoundationModel, load_model
from ..preprocessing.body_coordinates import UNKNOWN
from ..runner.batch import run_batch
from ..runner.case_search import find_cases
from ..runner.load import load
from ..runner.settings import RunSettings
from ..segmentation.head_file import load_head
from ..segmentation.inputs import SegmentationInput
from ..segmentation.method import InferenceBudget

SPACING = 1.5
"""Of the voxels that a network of a bundle is told, mm."""


class PriorNetwork(nn.Module):
    """A prior as a network with one input: takes noise out of windows.

    Args:
        weights: .safetensors file.
        noise: standard deviation in the input, HU.
        control: .safetensors file of a ControlNet; its channels then follow the image's.
    """

    def __init__(self, weights: str, noise: float = 20.0, control: str | None = None) -> None:
        super().__init__()
        model = load_model(str(weights), device="cpu", precision="float32")
        self.sigma = noise / HU_LIMIT
        self.denoiser = model.engine.denoiser if control is None else _controlled(control, model)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 1 + C, D, H, W), HU and the control's C channels -> (B, 1, D, H, W), HU."""
        x = (image[:, :1] / HU_LIMIT).clamp(-1, 1)
        control = image[:, 1:] if image.shape[1] > 1 else None
        conditions = []
        for number in range(len(image)):
            condition = Condition((SPACING,) * 3, control=None if control is None else control[number])
            conditions.append(condition.encode(tuple(x.shape[2:]), image.device))  # type: ignore[arg-type]
        sigma = torch.full((len(x),), self.sigma, device=image.device)
        return self.denoiser(x, sigma, stack(conditions)).float() * HU_LIMIT


class SegmentationNetwork(nn.Module):
    """A segmentation head with its prior as a network with one input.

    Args:
        weights: .safetensors file of the head.
        prior: that of its prior.
        window: largest edge that is computed at once, voxels.
    """

    def __init__(self, weights: str, prior: str, window: int = 64) -> None:
        super().__init__()
        head = load_head(str(weights), load_model(str(prior), device="cpu", precision="float32"))
        self.segmenter, self.spacing, self.window = head.segmenter, head.spacing, window

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 1, D, H, W), HU -> (B, classes, D, H, W), probabilities that do not exclude each other."""
        budget = InferenceBudget(image.device, torch.float32, window=self.window)
        condition = Condition((self.spacing,) * 3)
        scans = [SegmentationInput(scan[0].cpu().numpy(), condition, UNKNOWN) for scan in image]
        return torch.stack([self.segmenter.predict(scan, budget).probabilities for scan in scans]).to(image.device)


def _controlled(control: str, model: FoundationModel) -> nn.Module:
    from ..models.controlnet_file import load_control

    return load_control(str(control), model).denoiser


class BundleRun:
    """A task on every CT of a folder, as ``meddifffm TASK --batch`` does it.

    Args:
        task: name.
        cases: folder or list.
        folder: of the results.
        model: .safetensors file of the prior.
        parameters: of the task.
        masks: folder with a mask for each CT, for tasks that need one.
        device: as for ``load_model``, or torch's.
    """

    def __init__(
        self,
        task: str,
        cases: str,
        folder: str,
        model: str,
        parameters: dict[str, Any] | None = None,
        masks: str | None = None,
        device: str | torch.device = "auto",
        seed: int = 0,
    ) -> None:
        self.settings = RunSettings(task, parameters or {}, seed, model=str(Path(model).resolve()), device=str(device))
        self.cases, self.folder, self.masks = Path(cases), Path(folder), masks

    def run(self) -> list[str]:
        """Compute all; gives the reports of the results.

        Raises:
            MedDiffFMError: there are no cases, or one of them failed.
        """
        settings = self.settings.checked()
        masks = {"mask": Path(self.masks)} if self.masks else None
        rows = run_batch(settings, find_cases([self.cases], settings.task, masks), self.folder, lambda: load(settings))
        failed = [row for row in rows if row.exit_code]
        if failed:
            raise MedDiffFMError(
                f"{len(failed)} of {len(rows)} cases failed, first {failed[0].name}.", failed[0].message
            )
        return [row.report for row in rows]
