"""How long a run will take, from the runs before it on this computer; before the first one, from its speed."""

import json
import os
import platform
import time

import qt
import slicer
from slicer.i18n import tr as _

from ..nodes.volumeNodes import volumeFromNode

SETTING = "MedDiffFM/SecondsPerUnit"
SPEED_SETTING = "MedDiffFM/MachineSpeed"

MATRIX_EDGE = 96  # one thread multiplies matrices so small
REFERENCE_SPEED = 200.0
"""What :func:`measuredSpeed` gives where the tasks' ``reference_seconds`` were measured: 2 cores with AVX-512, 100
GFLOP/s each; denoising took 2 to 7 s on three CTs of other shapes."""
CORES_POWER = 0.7
"""Many cores wait for memory, and of some two share one's arithmetic."""
START_SECONDS = 6.0
"""Until a new worker has loaded PyTorch and the model, on the same computer."""


class RuntimeEstimate:
    """Seconds that a unit of work took in the last run of the same kind, kept in the application settings.

    What a unit is, each task says by its ``work``, so that parameters and size of the input count.
    """

    def remember(self, run):
        """Learn from a FinishedRun."""
        units = workUnits(run.inputNode, run.choices.settings)
        seconds = run.report.get("seconds")
        if units and seconds:
            known = self._known()
            known[_key(run.choices.settings)] = seconds / units
            qt.QSettings().setValue(SETTING, json.dumps(known))

    def seconds(self, inputNode, settings):
        """Estimated seconds, None where no such run was measured yet."""
        perUnit = self._known().get(_key(settings))
        units = workUnits(inputNode, settings)
        return perUnit * units if perUnit and units else None

    def sentence(self, inputNode, settings, onProcessor=True):
        """The estimate in words.

        :param onProcessor: False where an accelerator will compute, of whose speed nothing is known before a run.
        """
        seconds = self.seconds(inputNode, settings)
        if seconds is not None:
            return _("About {time}.").format(time=duration(seconds))
        seconds = self._expected(inputNode, settings) if onProcessor else None
        if seconds is not None:
            return _("About {time} (estimated).").format(time=duration(seconds))
        return _("How long it takes is known after the first run on this computer.")

    def _expected(self, inputNode, settings):
        """Seconds of a first run on the processor, None where nothing can be said: on a GPU, or of another model."""
        from MedDiffFMLib.models.names import DEFAULT_MODEL
        from MedDiffFMLib.tasks.registry import TASKS

        units, reference = workUnits(inputNode, settings), TASKS[settings.task].reference_seconds
        known = settings.model == DEFAULT_MODEL and settings.device in ("auto", "cpu") and settings.precision == "auto"
        if not (known and units and reference):
            return None
        start = 0 if self._known() else START_SECONDS
        return (reference * units + start) * REFERENCE_SPEED / machineSpeed()

    def _known(self):
        try:
            known = json.loads(slicer.util.settingsValue(SETTING, "{}", converter=str))
        except ValueError:
            return {}
        return known if isinstance(known, dict) else {}


def machineSpeed():
    """Speed of this computer, measured once in a hundredth of a second and kept in the settings."""
    name = f"{platform.node()}/{platform.processor() or platform.machine()}"
    try:
        stored = json.loads(slicer.util.settingsValue(SPEED_SETTING, "{}", converter=str))
        return max(float(stored[name]), 1.0)
    except (ValueError, TypeError, KeyError):
        speed = measuredSpeed()
        qt.QSettings().setValue(SPEED_SETTING, json.dumps({name: speed}))
        return max(speed, 1.0)


def measuredSpeed():
    """GFLOP/s of products of matrices in single precision on one core, times what more cores are worth."""
    import numpy as np

    matrix = np.ones((MATRIX_EDGE, MATRIX_EDGE), np.float32)
    best = 1.0
    for _attempt in range(300):  # the fastest, since other programs only slow it: 10 ms in all
        begin = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - begin)
    cores = (os.cpu_count() or 2) / 2
    return 2 * MATRIX_EDGE**3 / max(best, 1e-9) / 1e9 * 2 * cores**CORES_POWER


def duration(seconds):
    """12 s, or 3 min."""
    return f"{max(seconds, 1):.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _key(settings):
    key = f"{settings.task}/{settings.model}/{settings.device}"
    return key if settings.precision == "auto" else f"{key}/{settings.precision}"


def workUnits(inputNode, settings):
    """The task's own measure of its work; 0 where it is unknown."""
    isThere = inputNode is not None and inputNode.GetImageData() is not None
    return settings.checked().parameters.work(volumeFromNode(inputNode) if isThere else None)
