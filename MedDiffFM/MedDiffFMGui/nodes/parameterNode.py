"""What the panel saves with the scene, and the choices in it."""

from enum import Enum
from typing import Union

from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import parameterNodeWrapper


class Device(Enum):
    """Where the model computes; the values are the library's names."""

    AUTOMATIC = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    XPU = "xpu"
    MPS = "mps"

    def label(self):
        """Text in the panel."""
        titles = {
            "auto": _("automatic"),
            "cpu": _("processor (CPU)"),
            "cuda": _("NVIDIA or AMD GPU"),
            "xpu": _("Intel GPU"),
            "mps": _("Apple GPU"),
        }
        return titles[self.value]


class Precision(Enum):
    """Number type of the network's arithmetic; the values are the library's names."""

    AUTOMATIC = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"

    def label(self):
        """Text in the panel."""
        return _("automatic") if self is Precision.AUTOMATIC else self.value


class Region(Enum):
    """Part of the body; the values are the library's names, empty for a guess from the image."""

    AUTOMATIC = ""
    HEAD_NECK = "head-neck"
    CHEST = "chest"
    ABDOMEN = "abdomen"
    PELVIS = "pelvis"
    WHOLE_BODY = "whole-body"
    UNKNOWN = "none"

    def label(self):
        """Text in the panel."""
        return {"": _("automatic"), "none": _("none of these")}.get(self.value, self.value.replace("-", " "))


@parameterNodeWrapper
class MedDiffFMParameterNode:
    """What is saved with the scene.

    The parameters of all tasks are one JSON text, task -> name -> value: the library defines them, not the module.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    anatomy: vtkMRMLSegmentationNode
    mask: vtkMRMLSegmentationNode
    searchArea: Union[vtkMRMLSegmentationNode, vtkMRMLMarkupsROINode, None]  # noqa: UP007  # Slicer knows no other form
    task: str = ""
    parameters: str = ""
    model: str = "starter-ct"
    region: Region = Region.AUTOMATIC
    device: Device = Device.AUTOMATIC
    precision: Precision = Precision.AUTOMATIC
    seed: int = 0
