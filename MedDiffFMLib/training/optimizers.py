"""Optimizers of the training loop: AdamW, and Muon for the convolution kernels of the body.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) replaces the momentum of a weight matrix by the
nearest semi-orthogonal matrix, so that all directions of a layer learn at one pace. Its update is scaled to the usual
size of AdamW's (Liu et al. 2025, arXiv 2502.16982), so that both share one learning rate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_MOMENTUM, _SCALE = 0.95, 0.2
_STEPS = ((3.4445, -4.7750, 2.0315),) * 5
"""Coefficients of the quintic Newton-Schulz iterations."""


def make_optimizer(module: nn.Module, name: str, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """Optimizer of a module's parameters.

    Args:
        name: "adamw" or "muon".
    """
    settings: dict[str, Any] = {"lr": learning_rate, "weight_decay": weight_decay, "betas": (0.9, 0.99), "fused": True}
    if name == "adamw":
        return torch.optim.AdamW(module.parameters(), **settings)
    kernels, others = body_kernels(module)
    return Muon([{"params": kernels, "orthogonal": True}, {"params": others, "orthogonal": False}], **settings)


def body_kernels(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Convolution kernels between the first and the last layer of a network, and all other parameters."""
    kernels: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        outer = any(part in ("conv_in", "out") for part in name.split("."))
        (kernels if parameter.ndim == 5 and not outer else others).append(parameter)
    return kernels, others


class Muon(torch.optim.AdamW):
    """AdamW whose groups with ``orthogonal`` take orthogonalized momentum instead."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters once."""
        for group in self.param_groups:
            if group["orthogonal"]:
                for parameter in group["params"]:
                    self._orthogonal_step(parameter, group["lr"], group["weight_decay"])
        return super().step(closure)

    def _orthogonal_step(self, parameter: nn.Parameter, rate: float, weight_decay: float) -> None:
        """Update one kernel, and take its gradient away from AdamW."""
        gradient, state = parameter.grad, self.state[parameter]
        if gradient is None:
            return
        if not state:
            state["step"] = torch.zeros(())  # AdamW expects one when a state is loaded
            state["momentum"] = torch.zeros_like(gradient)
        state["step"] += 1
        momentum = state["momentum"].lerp_(gradient, 1 - _MOMENTUM)
        update = gradient.lerp(momentum, _MOMENTUM).flatten(1).float()
        size = _SCALE * max(update.shape) ** 0.5
        parameter.mul_(1 - rate * weight_decay)
        parameter.add_(orthogonalized(update).reshape(parameter.shape), alpha=-rate * size)
        parameter.grad = None


def orthogonalized(matrix: torch.Tensor) -> torch.Tensor:
    """Matrix with the same singular vectors and singular values near 1 (0.7 to 1.2), (rows, columns).

    The odd polynomials of the Newton-Schulz iteration are composed on the small Gram matrix, so the large matrix is
    multiplied twice and not ten times.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalized(matrix.T).T
    matrix = matrix / matrix.norm().clamp_min(1e-12)
    gram = matrix @ matrix.T
    whole = identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for a, b, c in _STEPS:
        factor = a * identity + b * gram + c * (gram @ gram)
        whole = factor @ whole
        gram = factor @ gram @ factor
    return whole @ matrix
