"""The precision that is chosen is one that the processor computes fast."""

from __future__ import annotations

import time

import torch

from MedDiffFMLib.core.precision import autocast


def test_what_is_chosen_on_this_processor_is_not_slower_than_float32() -> None:
    """Without oneDNN's kernels a convolution in bfloat16 takes some hundred times as long."""
    layer, image = torch.nn.Conv3d(64, 64, 3, padding=1), torch.zeros(1, 64, 10, 10, 10)

    def seconds(precision: str) -> float:
        spent = []
        for _ in range(3):
            begin = time.process_time()
            with torch.inference_mode(), autocast(torch.device("cpu"), precision):
                layer(image)
            spent.append(time.process_time() - begin)
        return min(spent)

    assert seconds("auto") < 5 * seconds("float32") + 0.02
