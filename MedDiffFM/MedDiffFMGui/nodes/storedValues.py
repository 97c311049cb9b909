"""CTs that hold a scanner's stored values, 0 to 4095, in place of Hounsfield units."""

from .volumeNodes import addResultNode, copying, volumeFromNode

OFFSET = 1024
"""What scanners add to Hounsfield units so that no value is negative."""


def holdsStoredValues(node):
    """Whether a volume that is no CT as it is would be one with OFFSET subtracted."""
    from MedDiffFMLib.core.errors import MedDiffFMError
    from MedDiffFMLib.imaging.modality_checks import check_volume
    from MedDiffFMLib.imaging.volume import Volume

    if node is None or node.GetImageData() is None:
        return False
    low, high = node.GetImageData().GetScalarRange()
    if low < 0 or high < OFFSET or high > 2**16:
        return False
    volume = volumeFromNode(node)
    try:
        check_volume(Volume(volume.voxels.astype("float32") - OFFSET, volume.ijk_to_ras), "CT")
    except MedDiffFMError:
        return False
    return True


def subtracting1024(node, name):
    """Add the volume in Hounsfield units beside one in stored values, as the value of a generator of short steps."""
    import numpy as np

    voxels = yield from copying(volumeFromNode(node).voxels)
    kind = np.int32 if voxels.dtype.kind in "iu" else np.float32
    shifted = np.subtract(voxels, OFFSET, dtype=kind)
    yield
    return addResultNode(shifted, node, name, sameDisplay=False)
