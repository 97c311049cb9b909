"""Tissue classes of a CT from its Hounsfield units alone, as a condition that needs no organ labels.

The rule, in this order; all lengths are in mm, so that thin and thick slices are treated alike. The image is smoothed
by 1 mm where the voxels are finer, which keeps the noise of a low-dose scan from peppering the classes.

===============  =====================================================================================================
lung             gas (below -400 HU) around pieces that are deep and on average denser than air; pieces that the side
                 of the image cuts, or that lie outside the body, must be walled in by it: a cushion is not
outside          what is not the body (:func:`.region.body_mask`), and in a crop inside the body gas that the side of
                 the image cuts, and what such gas separates from the body
airway           all other gas but at the skin: trachea and main bronchi, gas in the bowel, sinuses, bullae
bone             dense (above 130 HU): where enough of the dense voxels around are thin and bright, or very bright, or
                 ringed by brighter ones in their slice
contrast-filled  what else is dense: vessels, heart, kidneys, bowel with contrast agent
fat              from gas up to -30 HU, but for the mixed voxels at the surface of gas
muscle           everything else: muscle, organs, fluid, cartilage
===============  =====================================================================================================

What it does not know: metal is bone, and so may be contrast agent above 1000 HU and thin arteries beside bone; the
inside of a dense vertebra may count as filled with contrast agent; feces with gas are fat or airway; bullae are airway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .region import air_around, body_mask

if TYPE_CHECKING:
    import torch

TISSUES = ("outside", "lung", "airway", "fat", "muscle and soft tissue", "contrast-filled", "bone")
TISSUE_CHANNELS = len(TISSUES)
OUTSIDE, LUNG, AIRWAY, FAT, MUSCLE, CONTRAST, BONE = range(1, TISSUE_CHANNELS + 1)
"""Values of a tissue map; 0 is unknown."""

SMOOTHING_MM = 1.0
GAS_HU, AIR_HU, FAT_HU, DENSE_HU = -400, -1000, -30, 130
"""Upper end of gas, air itself, upper end of fat, lower end of what is dense."""
LUNG_HU = (-900, -820)
"""Airways are nearer to air than to the scan's own lung, which is taken to lie between these."""
DEPTH_MM = 6.0
"""A box of this width fits into a lung or an airway around its deep voxels."""
LUNG_ML, TIP_ML, DOUBTFUL_ML = 40.0, 3.0, 100.0
"""Least volume of the deep voxels of a lung, of one that the first or last slice cuts, of one that the side cuts."""
WALLED_SHARE = 0.9
"""Least share of a lung's surface that tissue of the body faces. Measured on 20 CTs: 0.94 and more of lungs that the
side of the image cuts, at most 0.84 of cushions and blankets of that size."""
OPEN_ML = 10.0
"""A larger piece of gas that reaches the side of a crop is open there; the bronchi in a crop of a lung are smaller."""
LOOSE_SHARE = 0.05
"""A piece smaller than this share of the largest, around which there is open gas, is table or clothing."""
CORE_HU, SURE_HU, HARD_HU = 220, 300, 1000
"""Bone core is denser than the first and thin, surely so if denser than the second, or denser than the third."""
THIN_MM, NEAR_MM, THIN_HU = 9.0, 9.0, 100
"""Thin is what exceeds by so much all that is wider than the first within a box of the second."""
RING_HU = (170, 200, 240, 300)
"""Spongy bone has less than one of these and is ringed by compact bone that has more."""
AMONG_MM, CORE_SHARE, SURE_SHARE = 25.0, 0.3, 0.03
"""A dense voxel is bone where such shares of the dense voxels in a box of this width around it are core, and surely."""
COARSE_ENOUGH_MM = 1.2
"""Of finer voxels every other one along the axis decides what is bone."""
IN_LUNG_MM, IN_LUNG_SHARE = 13.0, 0.4
"""Distance and share of lung: bone with so much lung around it is a vessel and no core."""

Spacing = tuple[float, float, float]


def encode_tissue(tissue: torch.Tensor) -> torch.Tensor:
    """(D, H, W) classes, even edges -> (7, D/2, H/2, W/2): share of each class in 2x2x2 voxels, zeros where unknown."""
    import torch

    classes = torch.arange(1, TISSUE_CHANNELS + 1, device=tissue.device, dtype=tissue.dtype)
    one_hot = (tissue[None] == classes[:, None, None, None]).float()
    return torch.nn.functional.avg_pool3d(one_hot[None], 2)[0]


def classify_tissue(hounsfield: np.ndarray, spacing_kji: Spacing, body: np.ndarray | None = None) -> np.ndarray:
    """Class of each voxel, 1 to 7 as :data:`TISSUES` lists them.

    Args:
        hounsfield: (k, j, i) HU, k along the patient's axis.
        spacing_kji: voxel size in mm.
        body: bool mask of the body if it is known already.

    Returns:
        uint8 array of the same shape.
    """
    body = body_mask(hounsfield) if body is None else body
    smooth = _smoothed(hounsfield, spacing_kji)
    gas = smooth < GAS_HU
    lung, tubes = _lungs(smooth, gas, body, spacing_kji)
    inside = body if air_around(hounsfield) else _without_open_gas(gas & ~lung & ~tubes, spacing_kji)
    inside = inside | lung | tubes
    tissue = np.full(hounsfield.shape, OUTSIDE, np.uint8)
    tissue[inside] = MUSCLE
    tissue[inside & (smooth < FAT_HU)] = FAT
    # Skin is a mixture with air.
    tissue[inside & gas & ~_dilated(~inside, _box(3.0, spacing_kji, least=3))] = AIRWAY
    tissue[lung] = LUNG
    del gas, lung, tubes, inside
    _clear_surface_of_gas(tissue, spacing_kji)
    _classify_dense(tissue, smooth, spacing_kji)
    return tissue


def _smoothed(hounsfield: np.ndarray, spacing: Spacing) -> np.ndarray:
    """int16 HU, smoothed along the axes whose voxels are fine."""
    from scipy.ndimage import gaussian_filter1d

    smooth = np.clip(hounsfield, -1024, 3071).astype(np.int16)
    for axis, step in enumerate(spacing):
        if SMOOTHING_MM / step >= 0.4:
            smooth = gaussian_filter1d(smooth, SMOOTHING_MM / step, axis, mode="nearest", truncate=2.5)
    return smooth


def _box(millimeters: float, spacing: Spacing, least: int = 1) -> list[int]:
    """Odd numbers of voxels nearest to a length, along each axis."""
    return [max(2 * int(millimeters / step / 2 + 0.25) + 1, least) for step in spacing]


def _dilated(mask: np.ndarray, box: list[int]) -> np.ndarray:
    from scipy.ndimage import maximum_filter

    return maximum_filter(mask.view(np.uint8), box, mode="constant").view(bool)


def _eroded(mask: np.ndarray, box: list[int]) -> np.ndarray:
    """Mask eroded by ``box`` voxels; everything beyond the image counts as mask."""
    from scipy.ndimage import minimum_filter

    return minimum_filter(mask.view(np.uint8), box, mode="constant", cval=1).view(bool)


def _sides(array: np.ndarray) -> np.ndarray:
    """The voxels of the four sides of the slices, flat."""
    return np.concatenate([array[:, [0, -1]].ravel(), array[:, :, [0, -1]].ravel()])


def _without_open_gas(gas: np.ndarray, spacing: Spacing) -> np.ndarray:
    """A crop inside the body without the gas that is open to its sides and without what lies loose in that."""
    from scipy.ndimage import label

    pieces, count = label(gas)
    cut = np.bincount(pieces.ravel(), minlength=count + 1) * float(np.prod(spacing)) / 1000 > OPEN_ML
    cut &= np.isin(np.arange(count + 1), _sides(pieces))
    cut[0] = False
    inside = ~cut[pieces]
    pieces, count = label(inside)
    voxels = np.bincount(pieces.ravel(), minlength=count + 1)
    voxels[0] = 0
    return (voxels > LOOSE_SHARE * voxels.max())[pieces]


def _lungs(smooth: np.ndarray, gas: np.ndarray, body: np.ndarray, spacing: Spacing) -> tuple[np.ndarray, np.ndarray]:
    """Lung without its larger airways, and those airways."""
    from scipy import ndimage

    depth = _box(DEPTH_MM, spacing, least=3)
    deep = _eroded(gas, depth)
    mean = ndimage.uniform_filter(smooth, depth, mode="nearest")
    usual = mean[deep & body & (mean > (AIR_HU + LUNG_HU[0]) / 2)]
    airy = mean <= (AIR_HU + np.clip(np.median(usual) if usual.size else LUNG_HU[0], *LUNG_HU)) / 2
    del mean, usual
    pieces, count = ndimage.label(deep & ~airy)
    voxels = np.bincount(pieces.ravel(), minlength=count + 1)
    cut = np.zeros(count + 1, dtype=bool)
    cut[pieces[[0, -1]]] = True
    doubtful = np.bincount(pieces[~body], minlength=count + 1) > 0.1 * voxels
    doubtful[_sides(pieces)] = True
    least = np.where(doubtful, DOUBTFUL_ML, np.where(cut, TIP_ML, LUNG_ML))
    large = voxels * float(np.prod(spacing)) / 1000 >= least
    large[0] = False
    boxes = ndimage.find_objects(pieces)
    for number in np.flatnonzero(large & doubtful):
        large[number] = _walled_in(boxes[number - 1], pieces, int(number), body & ~gas, depth)
    core = large[pieces]
    del pieces
    lung = _dilated(core, [2 * n - 1 for n in depth]) & gas
    # The wall's side of an airway is a mixture, as dense as lung.
    tubes = _dilated(deep & airy, depth) & lung & ~core
    return lung & ~tubes, tubes


def _walled_in(
    box: tuple[slice, slice, slice], pieces: np.ndarray, number: int, tissue: np.ndarray, depth: list[int]
) -> bool:
    """Whether enough of the surface of the gas around a deep piece faces tissue."""
    wider = tuple(slice(max(s.start - n - 1, 0), s.stop + n + 1) for s, n in zip(box, depth, strict=True))
    piece = pieces[wider] == number
    shell = _dilated(piece, [2 * n + 1 for n in depth]) & ~_dilated(piece, [2 * n - 1 for n in depth])
    return bool((shell & tissue[wider]).sum() > WALLED_SHARE * shell.sum())


def _clear_surface_of_gas(tissue: np.ndarray, spacing: Spacing) -> None:
    """Voxels at the surface of gas are a mixture with the density of fat; they are fat only beside other fat."""
    gas = (tissue == LUNG) | (tissue == AIRWAY)
    if not gas.any():
        return
    fat = tissue == FAT
    mixed = fat & _dilated(gas, _box(3.0, spacing, least=3))
    beside = _dilated(fat & ~mixed, _box(3.0, spacing, least=3))
    tissue[mixed & ~beside] = MUSCLE


def _classify_dense(tissue: np.ndarray, smooth: np.ndarray, spacing: Spacing) -> None:
    """Bone and what contrast agent fills."""
    from scipy import ndimage

    dense = (tissue == MUSCLE) & (smooth > DENSE_HU)
    if not dense.any():
        return
    box = ndimage.find_objects(dense.view(np.uint8))[0]
    dense, tissue = dense[box], tissue[box]
    # Of fine voxels every other one decides; the image is smooth and the boxes are large.
    every = [2 if step < COARSE_ENOUGH_MM else 1 for step in spacing]
    some = tuple(slice(None, None, n) for n in every)
    k, j, i = (step * n for step, n in zip(spacing, every, strict=True))
    bony = _bony(smooth[box][some], dense[some], tissue[some] == LUNG, (k, j, i))
    for axis, n in enumerate(every):
        bony = np.repeat(bony, n, axis)
    bone = dense & bony[tuple(slice(n) for n in dense.shape)]
    tissue[dense] = CONTRAST
    tissue[bone] = BONE


def _bony(smooth: np.ndarray, dense: np.ndarray, lung: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Mask of the dense voxels that are bone."""
    from scipy import ndimage

    wide = ndimage.grey_opening(smooth, _box(THIN_MM, spacing, least=3))
    core = dense & (smooth - ndimage.maximum_filter(wide, _box(NEAR_MM, spacing)) > THIN_HU)
    del wide
    core = (core & (smooth > CORE_HU)) | (dense & (smooth > HARD_HU))
    core &= _share(lung, IN_LUNG_MM, spacing) < IN_LUNG_SHARE
    among = _share(dense, AMONG_MM, spacing)
    bony = _share(core & (smooth > SURE_HU), AMONG_MM, spacing) > SURE_SHARE * among
    return bony & (_share(core | _ringed(smooth, dense), AMONG_MM, spacing) > CORE_SHARE * among)


def _share(mask: np.ndarray, millimeters: float, spacing: Spacing) -> np.ndarray:
    """Share of a mask in the box around each voxel, float32."""
    from scipy.ndimage import uniform_filter

    return uniform_filter(mask.astype(np.float32), _box(millimeters, spacing), mode="constant")


def _ringed(smooth: np.ndarray, dense: np.ndarray) -> np.ndarray:
    """Dense voxels that denser ones surround in their slice."""
    from scipy.ndimage import binary_fill_holes

    ringed = np.zeros_like(dense)
    for plane, image, some in zip(ringed, smooth, dense, strict=True):
        for level in RING_HU:
            ring = some & (image > level)
            plane |= binary_fill_holes(ring) & ~ring
    return ringed & dense
