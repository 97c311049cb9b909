"""Words about the chosen volume, before anything is computed."""

import re

import slicer
from slicer.i18n import tr as _

from ..nodes.volumeNodes import volumeFromNode
from ..worker.eventLoopTasks import EventLoopTask, importing

COARSE_MM, GUESS_VOXELS = 3.0, 800_000
GUESS_MODULES = (
    "numpy.testing",
    "numpy.f2py",
    "scipy._lib._util",
    "scipy._lib._array_api",
    "scipy.special",
    "scipy.ndimage",
)


class InputLine:
    """The line below the volume selector.

    :param label: QLabel that shows it.
    """

    def __init__(self, label):
        self._label = label
        self._loopTask = EventLoopTask()

    def show(self, node, modality="CT"):
        """Say what the volume is, or why it cannot be used; a few turns of the event loop later which region it shows.

        :return: why it cannot be used; empty for a volume that can be.
        """
        facts, reason = describeInput(node, modality)
        self._label.text = facts or (reason if node else "")
        self._label.visible = bool(self._label.text)
        self._loopTask.stop()
        if not reason and modality == "CT":
            self._loopTask.start(guessingRegion(node), lambda region: self._add(facts, region), atOnce=False)
        return reason

    def stop(self):
        """The label goes away."""
        self._loopTask.stop()

    def _add(self, facts, region):
        if region:
            first, *warnings = facts.split("\n")
            first = _("{facts}, probably {region}").format(facts=first, region=region.replace("-", " "))
            self._label.text = "\n".join([first, *warnings])


def guessingRegion(node):
    """The region that an automatic run will most likely take; a generator of steps, its value None where none fits.

    A run looks at voxels 1.5 to 3 mm apart, this at coarser ones, so that it takes no time to speak of.
    """
    yield from importing(*GUESS_MODULES)
    import numpy as np

    from MedDiffFMLib.imaging.volume import Volume
    from MedDiffFMLib.preprocessing.body_localization import localize_body

    if not slicer.mrmlScene.IsNodePresent(node) or node.GetImageData() is None:
        return None
    volume = volumeFromNode(node)
    i, j, k = (max(1, round(COARSE_MM / edge)) for edge in volume.spacing)
    k *= -(-volume.voxels.size // (i * j * k * GUESS_VOXELS))  # the guess goes by slices: some of them will do
    coarse = np.ascontiguousarray(volume.voxels[::k, ::j, ::i])
    yield
    return localize_body(Volume(coarse, volume.ijk_to_ras @ np.diag([i, j, k, 1.0]))).guessed


def describeInput(node, modality="CT"):
    """What the panel shows below the volume selector, and why it cannot be used.

    :return: (facts or warnings, reason); the reason is empty for a volume that can be used.
    """
    from MedDiffFMLib.core.errors import MedDiffFMError
    from MedDiffFMLib.imaging.modality import WITH_ARTICLE
    from MedDiffFMLib.imaging.modality_checks import check_volume

    if node is None:
        return "", _("Choose {scan} volume first.").format(scan=WITH_ARTICLE[modality])
    if node.GetImageData() is None:
        return "", _("This volume has no voxels. Choose another one.")
    try:
        volume = volumeFromNode(node, modality)
        warnings = check_volume(volume, modality)
    except MedDiffFMError as error:
        return "", _withoutOptions(str(error))
    size = " x ".join(str(count) for count in reversed(volume.voxels.shape))
    spacing = " x ".join(f"{edge:.3g}" for edge in volume.spacing)
    return "\n".join([f"{size}, {spacing} mm", *warnings]), ""


def _withoutOptions(text):
    """The sentences but for those that name an option of the command line, which the panel does not have."""
    return " ".join(sentence for sentence in re.split(r"(?<=\.) ", text) if " --" not in sentence)
