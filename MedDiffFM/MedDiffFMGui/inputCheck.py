"""Words about the chosen volume, before anything is computed."""

from slicer.i18n import tr as _

from .volumeNodes import volumeFromNode


def describeInput(node):
    """What the panel shows below the volume selector, and why it cannot be used.

    :return: (facts or warnings, reason); the reason is empty for a volume that can be used.
    """
    from MedDiffFMLib.errors import MedDiffFMError
    from MedDiffFMLib.volume import check_ct

    if node is None:
        return "", _("Choose a CT volume first.")
    if node.GetImageData() is None:
        return "", _("This volume has no voxels. Choose another one.")
    try:
        volume = volumeFromNode(node)
        warnings = check_ct(volume)
    except MedDiffFMError as error:
        return "", str(error)
    size = " x ".join(str(count) for count in reversed(volume.voxels.shape))
    spacing = " x ".join(f"{edge:.3g}" for edge in volume.spacing)
    return "\n".join([f"{size}, {spacing} mm", *warnings]), ""
