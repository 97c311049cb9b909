"""Surfaces of body and bones, by which a place in 3D is recognized.

Surfaces, because without a GPU a volume rendering of a window of 1400 x 900 takes some 20 s, opaque triangles 0.3 s.
"""

from ..worker.eventLoopTasks import importing
from .surfaces import indexToRAS, surface
from .volumeNodes import slabs, volumeFromNode

CELL_MM = 3.5  # finer than a rib
BONE_HU, BONE_SMOOTHING = 200.0, 5
PIECE_MM3 = 5000.0
"""Least volume of a piece that is drawn: vessels with contrast agent and noise are smaller, and hide findings."""
OUTSIDE_HU = -1024.0
SLICES_AT_A_TIME = 16


def makingSurfaces(image):
    """Surfaces of a CT, as the value of a generator of short steps.

    :param image: volume node of a CT, HU.
    :return: vtkPolyData by name, "body" and "bones"; RAS without the volume's transform.
    """
    import numpy as np

    yield from importing("scipy.ndimage")
    volume = volumeFromNode(image)
    step = [
        max(1, min(round(CELL_MM / mm), n)) for mm, n in zip(volume.spacing[::-1], volume.voxels.shape, strict=True)
    ]
    coarse = yield from _means(volume.voxels, step)
    along = _alongPatient(volume)
    inside = yield from _inside(np.moveaxis(coarse, along, 0))
    inside = np.moveaxis(inside, 0, along)
    # A border at the sides closes the surfaces; at head and feet they stay open, so that one can look in.
    sides = [(int(axis != along),) * 2 for axis in range(3)]
    toRAS = _toRAS(image, [-n * before for n, (before, _after) in zip(step, sides, strict=True)], step)
    body = surface(np.pad(inside.astype(np.float32), sides), 0.5, toRAS)
    yield
    drawn = _largePieces(inside & (coarse > BONE_HU), PIECE_MM3 / (np.prod(step) * np.prod(volume.spacing)))
    yield
    bones = np.pad(np.where(inside & drawn, coarse, OUTSIDE_HU).astype(np.float32), sides, constant_values=OUTSIDE_HU)
    yield
    return {"body": body, "bones": surface(bones, BONE_HU, toRAS, BONE_SMOOTHING)}


def _largePieces(dense, least):
    """Whether a voxel is of a large connected piece, or beside one: there its surface lies.

    :param dense: boolean array.
    :param least: number of voxels.
    """
    import numpy as np
    from scipy import ndimage

    numbered, _count = ndimage.label(dense)
    large = np.bincount(numbered.ravel()) >= least
    large[0] = False
    return ndimage.binary_dilation(large[numbered], iterations=1)


def _toRAS(image, origin, step):
    """Transform of an array whose voxels are means of ``step`` (k, j, i) voxels of the volume from ``origin`` on."""
    middle = [first + (n - 1) / 2 for first, n in zip(origin, step, strict=True)]
    return indexToRAS(image, middle[::-1], step[::-1])


def _alongPatient(volume):
    """Axis (k, j, i) of the array that runs most along the patient."""
    import numpy as np

    return 2 - int(np.argmax(np.abs(volume.ijk_to_ras[2, :3])))


def _means(voxels, step):
    """Means of blocks of voxels, float32; a generator of short steps."""
    import numpy as np

    whole = voxels[tuple(slice(size // n * n) for size, n in zip(voxels.shape, step, strict=True))]
    sizes = [size // n for size, n in zip(whole.shape, step, strict=True)]
    coarse = np.empty(sizes, np.float32)
    blocks = whole.reshape(sizes[0], step[0], sizes[1], step[1], sizes[2], step[2])
    for slab in slabs(blocks):
        coarse[slab] = blocks[slab].mean(axis=(1, 3, 5), dtype=np.float32)
        yield
    return coarse


def _inside(coarse):
    """Whether a voxel is the body's or a cavity's in it; a generator of short steps.

    :param coarse: HU, first axis along the patient.
    """
    import numpy as np

    from MedDiffFMLib.conditioning.region import body_mask

    parts = []
    for first in range(0, len(coarse), SLICES_AT_A_TIME):
        parts.append(body_mask(coarse[first : first + SLICES_AT_A_TIME]))
        yield
    return np.concatenate(parts)
