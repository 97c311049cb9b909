"""Degradations of a case: lower dose, holes, lesions. Kept in a folder, for they are slow.

Everything random about a case is seeded by its name, so that two machines evaluate on the same voxels.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ...core.atomic_files import atomic_path
from .cases import LoadedCase
from .low_dose_noise import FULL_DOSE_NOISE_HU, incident_photons, low_dose_noise, noise_ratio
from .regions import depth, distance_to, soft_tissue
from .synthetic_holes import healthy_spheres
from .synthetic_lesions import insert_lesions

VERSION = 2
"""Raise it when a degradation changes, so that stored ones are made anew."""
MOST_NOISE_RATIO = 2.5
"""Own noise of a scan counts up to this multiple of the planned full dose's."""


@dataclass(frozen=True)
class Plan:
    """Plan of how cases are degraded; part of every report.

    Attributes:
        slab_mm: extent along the patient that is evaluated, None for everything.
        dose: fraction of the full dose.
        full_dose_noise_hu: noise of the full dose that the tube current control is set to, HU.
        sphere_diameters_mm, spheres_per_size: healthy spheres to fill.
        lesion_diameters_mm, lesion_contrasts_hu, lesions_per_size: synthetic soft-tissue lesions; each size also comes
            once as a solid nodule where there is lung.
        noise_kinds: of :data:`evaluation.quality.added_noise.KINDS`, each a question of the denoising task.
        noise_levels_hu: of every kind but the quarter dose.
        told_levels_hu: levels at which the model is run a second time, with the level given.
        seed: added to every case's own.
    """

    slab_mm: float | None = 96.0
    dose: float = 0.25
    full_dose_noise_hu: float = float(FULL_DOSE_NOISE_HU)
    sphere_diameters_mm: tuple[float, ...] = (30.0, 20.0, 10.0)
    spheres_per_size: int = 2
    lesion_diameters_mm: tuple[float, ...] = (25.0, 15.0, 8.0)
    lesion_contrasts_hu: tuple[float, ...] = (-80.0, -40.0, 40.0, 80.0)
    lesions_per_size: int = 2
    noise_kinds: tuple[str, ...] = ("dose", "projections", "ramp", "white")
    noise_levels_hu: tuple[float, ...] = (30.0,)
    told_levels_hu: tuple[float, ...] = (30.0,)
    seed: int = 0

    def case_seed(self, name: str) -> int:
        """A seed that depends on nothing but the case's name and the plan's seed."""
        return zlib.crc32(name.encode()) + self.seed

    def quick(self) -> Plan:
        """The same questions on a thinner slab, with one lesion and sphere of each size."""
        return replace(self, slab_mm=48.0, spheres_per_size=1, lesions_per_size=1)

    def questions(self, task: str) -> list[Plan]:
        """The plan taken apart: one for each kind and level of noise, one for any other task.

        What a part does not need has its default, so that stored results do not depend on it.
        """
        if task != "denoise":
            default = Plan()
            return [
                replace(
                    self,
                    noise_kinds=default.noise_kinds,
                    noise_levels_hu=default.noise_levels_hu,
                    told_levels_hu=default.told_levels_hu,
                )
            ]
        plain = Plan(slab_mm=self.slab_mm, dose=self.dose, full_dose_noise_hu=self.full_dose_noise_hu, seed=self.seed)
        return [
            replace(
                plain,
                noise_kinds=(kind,),
                noise_levels_hu=() if kind == "dose" else (level,),
                told_levels_hu=tuple(hu for hu in self.told_levels_hu if kind != "dose" and hu == level),
            )
            for kind in self.noise_kinds
            for level in (self.noise_levels_hu if kind != "dose" else (0.0,))
        ]


def quarter_dose(loaded: LoadedCase, plan: Plan) -> dict[str, np.ndarray]:
    """``noisy``: int16 HU as a scanner stores it; ``incident``: photons a ray at full dose.

    A scan that is itself noisier than the planned full dose was taken at less than that, and its quarter dose is
    noisier in proportion: otherwise its own noise, which is part of the truth, would hide what is to be removed.
    """
    hounsfield, spacing = loaded.volume.voxels, loaded.volume.spacing
    seed = plan.case_seed(loaded.case.name)
    level = plan.full_dose_noise_hu
    incident = incident_photons(hounsfield, spacing, loaded.body, level)
    noise = low_dose_noise(hounsfield, spacing, incident, plan.dose, seed)
    tissue = depth(soft_tissue(hounsfield, spacing, loaded.body), spacing) > 4.0
    if np.count_nonzero(tissue) > 1000:
        own = noise_ratio(hounsfield, noise, tissue) * np.sqrt(1 / plan.dose - 1)
        if own > 1.25:
            incident = incident_photons(hounsfield, spacing, loaded.body, level * min(own, MOST_NOISE_RATIO))
            noise = low_dose_noise(hounsfield, spacing, incident, plan.dose, seed)
    noisy = np.clip(np.rint(hounsfield + noise), -1024, 3071).astype(np.int16)
    return {"noisy": noisy, "incident": np.array(incident)}


def spheres(loaded: LoadedCase, plan: Plan) -> dict[str, np.ndarray]:
    """Diameter in mm as text -> uint8 labels of the spheres of that size."""
    holes = healthy_spheres(
        loaded.volume.voxels,
        loaded.volume.spacing,
        loaded.body,
        near_lesions(loaded),
        plan.sphere_diameters_mm,
        plan.spheres_per_size,
        seed=plan.case_seed(loaded.case.name),
    )
    return {f"{diameter:g}": labels for diameter, labels in holes.items()}


def synthetic_lesions(loaded: LoadedCase, plan: Plan) -> dict[str, np.ndarray]:
    """``changed``: float32 HU; ``labels``: uint8; ``lesions``: their list as JSON text."""
    changed, labels, lesions = insert_lesions(
        loaded.volume.voxels,
        loaded.volume.spacing,
        loaded.body,
        near_lesions(loaded),
        plan.lesion_diameters_mm,
        plan.lesion_contrasts_hu,
        plan.lesions_per_size,
        seed=plan.case_seed(loaded.case.name),
    )
    return {
        "changed": changed,
        "labels": labels,
        "lesions": np.array(json.dumps([asdict(lesion) for lesion in lesions])),
    }


def near_lesions(loaded: LoadedCase, margin_mm: float = 5.0) -> np.ndarray:
    """Real lesions and what is within ``margin_mm`` of them: neither healthy nor a place for synthetic ones."""
    if not loaded.lesions.any():
        return np.zeros(loaded.lesions.shape, dtype=bool)
    return distance_to(loaded.lesions > 0, loaded.volume.spacing) <= margin_mm


def stored(
    make: Callable[[LoadedCase, Plan], dict[str, np.ndarray]], loaded: LoadedCase, plan: Plan, folder: Path | None
) -> dict[str, np.ndarray]:
    """``make(loaded, plan)``, read from ``folder`` when it is there for the same voxels, plan and version."""
    if folder is None:
        return make(loaded, plan)
    file = Path(folder) / f"{loaded.case.name}-{make.__name__}-{fingerprint(loaded, plan)}.npz"
    if file.is_file():
        with np.load(file) as content:
            return {name: content[name] for name in content.files}
    arrays = make(loaded, plan)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(file, overwrite=True) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)
    return arrays


def fingerprint(loaded: LoadedCase, plan: Plan) -> str:
    """Short hash of everything a degradation depends on."""
    return hashlib.sha256(json.dumps([VERSION, asdict(plan), loaded.digest]).encode()).hexdigest()[:12]
