"""Maps of figures (z-scores, usual errors, spreads) as parametric maps of 32-bit floats."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import __version__
from ...core.extras import needed
from ...imaging.volume import Volume
from .planes import planes_of
from .shell import MODEL_NAME, SCHEME, SERIAL, Purpose, finish, library_arguments
from .study import Study

UNITS = {"z": ("1", "UCUM", "no units"), "hu": ("[hnsf'U]", "UCUM", "Hounsfield unit"), "": ("1", "UCUM", "no units")}
QUANTITIES = {
    "z": ("113071", "DCM", "Z-score"),
    "spread": ("113061", "DCM", "Standard Deviation"),
    "": ("VALUE", SCHEME, "Value of a map"),
}


def parametric_map(volume: Volume, study: Study, purpose: Purpose, unit: str, quantity: str) -> Any:
    """A map with unit and quantity.

    Args:
        volume: finite numbers (k, j, i).
        unit: key of UNITS.
        quantity: key of QUANTITIES.
    """
    highdicom = needed("highdicom", "--dicom")
    concept = highdicom.sr.CodedConcept
    planes = planes_of(volume.with_voxels(np.asarray(volume.voxels, np.float32)))
    low, high = float(planes.voxels.min()), float(planes.voxels.max())
    mapping = highdicom.pm.RealWorldValueMapping(
        lut_label=purpose.title[:16],
        lut_explanation=purpose.title[:64],
        unit=concept(*UNITS[unit]),
        value_range=(low, high),
        slope=1.0,
        intercept=0.0,
        quantity_definition=concept(*QUANTITIES[quantity]),
    )
    window = highdicom.VOILUTTransformation((low + high) / 2, max(high - low, 1e-3))
    made = highdicom.pm.ParametricMap(
        source_images=study.images,
        pixel_array=planes.as_library_volume(study.frame),
        manufacturer_model_name=MODEL_NAME,
        software_versions=__version__,
        device_serial_number=SERIAL,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[window],
        content_description=purpose.title[:64],
        content_label="MAP",
        **library_arguments(study, purpose),
    )
    return finish(made, study, purpose)
