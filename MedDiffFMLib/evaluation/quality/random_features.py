"""Features of an untrained network: 3-D convolutions with fixed random weights.

No trained feature network for CT is shipped, and FID needs one. Random convolutions keep edges, texture and their
combinations without having learned any (Zhang et al. 2018, arXiv 1801.03924, compare such networks with trained ones).
NumPy draws the weights from one seed, so that every machine has the same network. Figures compare methods within one
report; they are no FID of the literature.
"""

from __future__ import annotations

import numpy as np

from ...imaging.intensity import HU_LIMIT

NAME = "random 3-D convolutions (seed 0)"
CHANNELS = (16, 32, 64)
KERNEL = 3
SEED = 0
AT_ONCE = 16


def random_features(windows: np.ndarray) -> np.ndarray:
    """(B, D, H, W) HU -> (B, 112): mean over space of what each of three layers gives.

    A layer is a convolution of 3 x 3 x 3 with stride 2, weights of variance 2 / fan-in (He et al. 2015), and a ReLU.
    """
    import torch
    import torch.nn.functional as functional

    kernels = [torch.from_numpy(kernel) for kernel in _kernels()]
    features = []
    with torch.inference_mode():
        for first in range(0, len(windows), AT_ONCE):
            part = np.clip(windows[first : first + AT_ONCE] / HU_LIMIT, -1, 1).astype(np.float32)
            layer, means = torch.from_numpy(part)[:, None], []
            for kernel in kernels:
                layer = functional.relu(functional.conv3d(layer, kernel, stride=2, padding=1))
                means.append(layer.mean(dim=(2, 3, 4)))
            features.append(torch.cat(means, dim=1).double().numpy())
    return np.concatenate(features) if features else np.zeros((0, sum(CHANNELS)))


def _kernels() -> list[np.ndarray]:
    """(out, in, 3, 3, 3) of each layer."""
    rng, before, kernels = np.random.default_rng(SEED), 1, []
    for channels in CHANNELS:
        shape = (channels, before, KERNEL, KERNEL, KERNEL)
        kernels.append((np.sqrt(2 / (before * KERNEL**3)) * rng.standard_normal(shape)).astype(np.float32))
        before = channels
    return kernels
