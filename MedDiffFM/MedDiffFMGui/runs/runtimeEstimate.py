"""How long a run will take, from the runs before it on this computer; before the first one, from its speed."""

import json
import os
import platform
import time
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ..nodes.volumeNodes import volumeFromNode

SETTING = "MedDiffFM/SecondsPerUnit"
SPEED_SETTING = "MedDiffFM/MachineSpeed"

MATRIX_EDGE = 96  # one thread multiplies matrices so small
REFERENCE_SPEED = 200.0
"""What :func:`measuredSpeed` gives where the seconds below were measured: 2 cores with AVX-512, 100 GFLOP/s each."""
REFERENCE_SECONDS = {"anomaly": 50.0, "denoise": 3.5, "inpaint": 0.17, "generate_lesion": 0.9}
"""Task -> seconds a unit of work with starter-ct there; denoising took 2 to 7 on three CTs of other shapes."""
CORES_POWER = 0.7
"""Many cores wait for memory, and of some two share one's arithmetic."""
START_SECONDS = 6.0
"""Until a new worker has loaded PyTorch and the model, on the same computer."""


class RuntimeEstimate:
    """Seconds that a unit of work took in the last run of the same kind, kept in the application settings.

    A unit is one network evaluation of a million voxels, or of the neighborhood of a mask, so that parameters and size
    of the input count.
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

    def sentence(self, inputNode, settings):
        """The estimate in words."""
        seconds = self.seconds(inputNode, settings)
        if seconds is not None:
            return _("About {time}.").format(time=duration(seconds))
        seconds = self._expected(inputNode, settings)
        if seconds is not None:
            return _("About {time} on this computer's processor (estimated).").format(time=duration(seconds))
        return _("How long it takes is known after the first run on this computer.")

    def _expected(self, inputNode, settings):
        """Seconds of a first run on the processor, None where nothing can be said: on a GPU, or of another model."""
        units = workUnits(inputNode, settings)
        task = settings.task
        known = settings.model == "starter-ct" and settings.device in ("auto", "cpu")
        if not (known and units and task in REFERENCE_SECONDS):
            return None
        start = 0 if self._known() else START_SECONDS
        return (REFERENCE_SECONDS[task] * units + start) * REFERENCE_SPEED / machineSpeed()

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
    return f"{settings.task}/{settings.model}/{settings.device}"


def workUnits(inputNode, settings):
    """Network evaluations times millions of voxels; 0 where it is unknown."""
    from MedDiffFMLib.tasks.parameters import describe
    from MedDiffFMLib.tasks.registry import TASKS

    task = settings.task
    values: dict[str, Any] = {field.name: field.default for field, _info in describe(TASKS[task].parameter_class())}
    values.update(settings.parameters)
    if task == "synthesize":
        return _synthesisUnits(values)
    if inputNode is None or inputNode.GetImageData() is None:
        return 0
    volume = volumeFromNode(inputNode)
    if task == "anomaly":  # its working voxels have a fixed size
        return volume.voxels.size * volume.voxel_volume / 27e6
    if TASKS[task].needs_mask or TASKS[task].synthetic:  # the neighborhood of the mask alone
        return max(values["steps"], 1) * values.get("samples", 1)
    return max(values.get("steps", 1), 1) * volume.voxels.size / 1e6


def _synthesisUnits(values):
    """The finest grid decides."""
    size, spacing = values["size"] or (300.0, 300.0, 300.0), values["spacing"] or 1.5
    passes = values["native_steps"] * (2 if values["guidance"] not in (0, 1) else 1)
    return passes * size[0] * size[1] * size[2] / spacing**3 / 1e6
