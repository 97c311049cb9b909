"""Consistency with parallel X-rays from the front and from the side, plane by plane, that gradients pass through.

Training through the true cones would take seconds a step. Parallel rays stay in their plane, where the X-rays are the
sums along its columns and its rows; the least change that meets both is the solution of a system of about a hundred
equations a plane.
"""

from __future__ import annotations

import torch

from MedDiffFMLib.multimodal.xray_consistency import AIR, DENSEST, EXACT, LEAST_BODY

BY_AIR, BY_ALL = 2, 1
"""Steps by which air, then all alike, move."""


def least_change(columns: torch.Tensor, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Least change (n, j, i), in the norm of 1 / weight, whose sums along j and along i are as told.

    Args:
        columns: (n, i).
        rows: (n, j).
        weight: (n, j, i), how far each voxel may move.
    """
    down, across = weight.sum(1), weight.sum(2)
    damping = EXACT * (down.mean() + across.mean())
    system = torch.cat(
        [
            torch.cat([torch.diag_embed(down), weight.transpose(1, 2)], 2),
            torch.cat([weight, torch.diag_embed(across)], 2),
        ],
        1,
    )
    system = system + damping * torch.eye(system.shape[-1])
    found = torch.linalg.solve(system, torch.cat([columns, rows], 1)[..., None])[..., 0]
    count = columns.shape[1]
    return weight * (found[:, None, :count] + found[:, count:, None])


def meet(
    image: torch.Tensor, truth: torch.Tensor, room: torch.Tensor, weight: torch.Tensor, steps: int
) -> torch.Tensor:
    """Image (n, j, i) in the network's range whose sums are those of ``truth``, which is air out of the room."""
    image = torch.where(room, image.clamp(AIR, DENSEST), AIR)
    for _ in range(steps):
        missing = truth - image
        columns, rows = missing.sum(1), missing.sum(2)
        wanted = columns[:, None] / room.sum(1, keepdim=True).clamp_min(1)
        wanted = wanted + rows[..., None] / room.sum(2, keepdim=True).clamp_min(1)
        stuck = ((image <= AIR) & (wanted < 0)) | ((image >= DENSEST) & (wanted > 0))
        image = (image + least_change(columns, rows, weight * (room & ~stuck))).clamp(AIR, DENSEST)
    return torch.where(room, image, AIR)


def met_in_planes(image: torch.Tensor, body: torch.Tensor, truth: torch.Tensor, room: torch.Tensor) -> torch.Tensor:
    """What X-rays make of an image as if all were body, (..., j, i), given the probability of the body."""
    shape = image.shape
    image, body, truth, room = (part.reshape(-1, *shape[-2:]) for part in (image, body, truth, room))
    weight = body.clamp_min(LEAST_BODY) ** -2 * room
    image = meet(image, truth, room, weight / weight.mean(), BY_AIR)
    return meet(image, truth, room, room.float(), BY_ALL).reshape(shape)
