"""Base model of the cascade: a network of the same kind for whole bodies, for the coarse image of ``synthesize``.

A prior is good at what its many windows show, and few of them show a whole body. The companion starts from the prior's
weights and is trained on whole bodies alone (``meddifffm pretrain --config whole-body --initial PRIOR``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.errors import ModelError
from .catalogue import list_models, resolve

if TYPE_CHECKING:
    import torch

    from .checkpoint import FoundationModel


def find_companion(model: FoundationModel) -> str | None:
    """Name of the catalogue's companion of a prior, or None."""
    return next((entry.name for entry in list_models("companion") if entry.prior == model.sha256), None)


def load_companion(spec: str, model: FoundationModel) -> tuple[torch.nn.Module, int, dict[str, Any]]:
    """The companion's denoiser, float32 on the CPU, the edge of its training windows, and what reports say about it.

    Args:
        spec: name from the catalogue, or path of a .safetensors file.

    Raises:
        ModelError: unknown, damaged, or too different from the prior to take its place.
    """
    from .checkpoint import denoiser_of, header_of, read_header, read_weights

    name, path, expected = resolve(spec)
    read_header(path)  # refuses a file of another kind in its own words
    weights = read_weights(path, expected)
    header = header_of(path, weights.metadata)
    denoiser: Any = denoiser_of(weights)
    if denoiser.network.config.divisor != model.engine.divisor:
        raise ModelError(
            f"{path.name} has another number of levels than the prior {model.name!r}.",
            "Train the companion with `meddifffm pretrain --config whole-body --initial` and that prior.",
        )
    return denoiser, int(header["config"].get("window", 64)), {"name": name, "sha256": weights.sha256}
