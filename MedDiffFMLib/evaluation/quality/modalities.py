"""Protocols of the tasks between modalities: they need no prior, so that task and baselines are methods alike.

``translate`` is judged on rows of the datalist that have an "mr" beside the CT; ``radiograph`` against sums in steps of
a tenth of a voxel along some rays; ``describe`` by what the datalist and the file's geometry say.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .degradations import Plan, stored
from .protocols import OWN, Row

if TYPE_CHECKING:
    from ...multimodal.beam import Beam
    from .cases import LoadedCase

BONE_HU = 150
NINETY = 1.645
BULK = ((0.12, 250.0), (0.62, 40.0), (np.inf, -95.0))
"""Upper end of an MR class in units of fat, and its HU: compact bone and other dark tissue, muscle, fat."""
RAYS, FINE = 400, 0.1
MAJORITY = {"region": "chest", "thickness": "of medium thickness"}
"""The most frequent facts of the CTs in training."""


def translate_rows(loaded: LoadedCase, plan: Plan, cache: Path | None, methods: dict[str, Any]) -> list[Row]:
    """Errors of CTs made from the MR, and of MRs made from the CT, in what both images show as body."""
    from ...multimodal.mutual_information import normalized_mutual_information as nmi

    if loaded.case.mr is None:
        return []
    pair = stored(aligned_pair, loaded, plan, cache)
    used = pair["seen"] & pair["body"] & pair["mr_body"]
    truth, signal = pair["hounsfield"][used].astype(float), pair["mr"][used].astype(float)
    limits, rows = (-1000, 1000), []
    truth = np.clip(truth, *limits)
    for name, method in methods.items():
        start = time.perf_counter()
        made = method(pair)
        seconds = time.perf_counter() - start
        hounsfield, spread = made["ct"][used], made.get("spread")
        error = np.abs(hounsfield - truth)
        found, bone = hounsfield > BONE_HU, truth > BONE_HU
        values = {
            "MAE": float(error.mean()),
            "bone Dice": float(2 * np.count_nonzero(found & bone) / max(found.sum() + bone.sum(), 1)),
            "NMI": nmi(hounsfield, signal) / nmi(truth, signal) if np.ptp(hounsfield) else float("nan"),
        }
        if spread is not None:
            values["covered"] = float(np.mean(error <= NINETY * spread[used]))
        if "mr" in made:
            values["MR MAE"] = float(np.abs(made["mr"][used] - signal).mean())
        rows.append(_row("translate", loaded, name, values, seconds))
    return rows


def aligned_pair(loaded: LoadedCase, plan: Plan) -> dict[str, np.ndarray]:
    """A CT and its MR on one grid."""
    from ...imaging.io import read_volume
    from ...multimodal.mr_body import mr_body
    from ...multimodal.pairs import SPACING_MM, pair_of

    case = loaded.case
    assert case.mr is not None
    pair = pair_of(read_volume(case.image), read_volume(case.mr, "MR"), case.name, case.patient)
    arrays = {name: getattr(pair, name) for name in ("hounsfield", "mr", "seen", "body")}
    return {**arrays, "mr_body": mr_body(pair.mr, (SPACING_MM,) * 3)}


def translate_methods() -> dict[str, Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]]:
    """Water and bulk densities, the lookup, the nearest neighbor, and the flows."""
    return {
        "water": lambda pair: {"ct": np.where(pair["mr_body"], 0.0, -1000.0)},
        "bulk densities": lambda pair: {"ct": _bulk(pair)},
        "lookup": lambda pair: _flows(pair, guess=True),
        "nearest neighbor in features": _nearest,
        "guess by local features": _local,
        OWN: lambda pair: _flows(pair, guess=False),
    }


def _bulk(pair: dict[str, np.ndarray]) -> np.ndarray:
    classes = np.searchsorted([top for top, _ in BULK], pair["mr"].astype(np.float32))
    return np.where(pair["mr_body"], np.array([value for _, value in BULK])[np.minimum(classes, 2)], -1000.0)


def _nearest(pair: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """HU of the training voxel whose surroundings are most alike."""
    from ...multimodal.flow_file import shipped_flows
    from ...multimodal.pairs import SPACING_MM

    flows = shipped_flows()
    found = flows.neighbors.hounsfield(_network(pair), pair["mr_body"], SPACING_MM)
    return {"ct": np.where(pair["mr_body"], found, -1000.0)}


def _flows(pair: dict[str, np.ndarray], guess: bool) -> dict[str, np.ndarray]:
    """Both directions."""
    import torch

    from ...imaging.intensity import HU_LIMIT, to_network
    from ...multimodal.flow_file import shipped_flows
    from ...multimodal.mr_intensity import FAT
    from ...multimodal.names import CT, MR_T1
    from ...multimodal.pairs import SPACING_MM
    from ...multimodal.translation import translate_image

    flows = shipped_flows()
    seen = torch.from_numpy(pair["seen"].astype(np.float32))
    sources = {CT: (_network(pair), pair["mr_body"]), MR_T1: (to_network(pair["hounsfield"]), pair["body"])}
    made = {}
    for target, (image, body) in sources.items():
        first = None
        if target == CT and not guess:
            first = torch.from_numpy(flows.guess.of_image(image, body, SPACING_MM))
        given = [torch.from_numpy(np.ascontiguousarray(a, np.float32)) for a in (image, body)]
        made[target] = translate_image(flows.flows[target], given[0], seen, given[1], first, flows.strength[target])
    ct, mr = (made[name].guess if guess else made[name].image for name in (CT, MR_T1))
    result = {"ct": HU_LIMIT * ct.numpy(), "mr": FAT.to_values(mr.numpy())}
    if not guess:
        result["spread"] = HU_LIMIT * flows.spread[CT] * made[CT].variance.sqrt().numpy()
    return result


def _local(pair: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The guess that the flow corrects."""
    from ...imaging.intensity import HU_LIMIT
    from ...multimodal.flow_file import shipped_flows
    from ...multimodal.pairs import SPACING_MM

    return {"ct": HU_LIMIT * shipped_flows().guess.of_image(_network(pair), pair["mr_body"], SPACING_MM)}


def _network(pair: dict[str, np.ndarray]) -> np.ndarray:
    from ...multimodal.mr_intensity import FAT

    return FAT.to_network(np.where(pair["seen"], pair["mr"], 0))


def radiograph_rows(loaded: LoadedCase, plan: Plan, cache: Path | None, methods: dict[str, Any]) -> list[Row]:
    """Line integrals of the CT's water along some rays of a frontal X-ray."""
    beam, density, chosen = _frontal(loaded)
    truth = _fine_sums(density, loaded.volume.ijk_to_ras, beam, chosen)
    rows = []
    for name, method in methods.items():
        start = time.perf_counter()
        found = method(density, loaded.volume.ijk_to_ras, beam).ravel()[chosen]
        seconds = time.perf_counter() - start
        error = 100 * float(np.abs(found - truth).mean() / max(truth.mean(), 1e-9))
        values = {"error": error, "correlation": float(np.corrcoef(found, truth)[0, 1])}
        rows.append(_row("radiograph", loaded, name, values, seconds))
    return rows


def _frontal(loaded: LoadedCase) -> tuple[Beam, np.ndarray, np.ndarray]:
    """A beam from behind, densities (k, j, i), and numbers of the pixels that are judged."""
    from ...multimodal.framing import frame_body
    from ...multimodal.names import parse_views
    from ...multimodal.views import Setup, aim, from_angles

    (angles,) = parse_views("ap")
    assert angles is not None
    beam, _ = aim(from_angles(angles), frame_body(loaded.volume), Setup(1800.0, 50.0, 128, None, False))
    density = np.clip(loaded.volume.voxels / 1000 + 1, 0, None).astype(np.float32)
    rng = np.random.default_rng(0)
    _, rows, columns = beam.detector.shape
    return beam, density, rng.choice(rows * columns, min(RAYS, rows * columns), replace=False)


def _fine_sums(density: np.ndarray, ijk_to_ras: np.ndarray, beam: Beam, chosen: np.ndarray) -> np.ndarray:
    """Sums of the trilinear image along rays in steps of a tenth of the smallest voxel edge, float64."""
    from scipy.ndimage import map_coordinates

    pixels = beam.pixels()[chosen]
    directions = beam.directions(pixels)
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in density.shape[::-1]])).reshape(3, -1)
    points = (ijk_to_ras @ np.vstack([corners, np.ones(8)]))[:3].T
    middle = points.mean(0)
    reach = np.linalg.norm(points - middle, axis=1).max() + 5
    edge = FINE * np.linalg.norm(ijk_to_ras[:3, :3], axis=0).min()
    along = np.arange(-reach, reach, edge)
    to_index = np.linalg.inv(ijk_to_ras)
    sums = []
    for pixel, direction in zip(pixels, directions, strict=True):
        nearest = pixel + ((middle - pixel) @ direction) * direction
        places = nearest + along[:, None] * direction
        index = to_index[:3, :3] @ places.T + to_index[:3, 3:]
        values = map_coordinates(density, index[::-1], order=1, mode="grid-constant", output=np.float64)
        sums.append(values.sum() * edge)
    return np.array(sums)


def radiograph_methods() -> dict[str, Callable[..., np.ndarray]]:
    """The task's line integrals, and a plain march through the volume."""

    def exact(density: np.ndarray, ijk_to_ras: np.ndarray, beam: Beam) -> np.ndarray:
        import torch

        from ...multimodal.projection import project

        return project(torch.from_numpy(density)[None], ijk_to_ras, beam)[0].numpy()

    return {"plain grid_sample, 128 points a ray": _plain, OWN: exact}


def _plain(density: np.ndarray, ijk_to_ras: np.ndarray, beam: Beam) -> np.ndarray:
    """128 points between source and detector for each pixel, as in a DRR of a few lines."""
    import torch

    pixels = beam.pixels()
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in density.shape[::-1]])).reshape(3, -1)
    points = (ijk_to_ras @ np.vstack([corners, np.ones(8)]))[:3].T
    source = pixels - 1000 * beam.normal if beam.source is None else np.broadcast_to(beam.source, pixels.shape)
    depth = beam.depths(points)
    whole = beam.depths(source[:1])[0]
    shares = 1 - np.linspace(depth.max(), depth.min(), 128) / whole
    places = source[:, None] + (pixels - source)[:, None] * shares[None, :, None]
    to_index = np.linalg.inv(ijk_to_ras)
    index = places @ to_index[:3, :3].T + to_index[:3, 3]
    scaled = 2 * index / (np.array(density.shape[::-1]) - 1) - 1
    grid = torch.from_numpy(scaled.astype(np.float32))[None, None]
    found = torch.nn.functional.grid_sample(torch.from_numpy(density)[None, None], grid, align_corners=True)
    lengths = np.linalg.norm(pixels - source, axis=1) * abs(shares[1] - shares[0])
    return (found[0, 0, 0].sum(-1).numpy() * lengths).astype(np.float32)


def describe_rows(loaded: LoadedCase, plan: Plan, cache: Path | None, methods: dict[str, Any]) -> list[Row]:
    """Whether region and class of slice thickness are right, and how much is written."""
    from ...imaging.io import read_volume
    from ...multimodal.facts.acquisition import thickness
    from ...multimodal.facts.kinds import REGION_WORDS

    volume = read_volume(loaded.case.image)
    rows = []
    truth = {"region": REGION_WORDS.get(loaded.case.region or ""), "thickness": thickness(volume.spacing[2])}
    for name, method in methods.items():
        start = time.perf_counter()
        said = method(volume)
        seconds = time.perf_counter() - start
        values = {slot: float(said.get(slot) == value) for slot, value in truth.items() if value is not None}
        values["written"] = float(said["written"])
        rows.append(_row("describe", loaded, name, values, seconds))
    return rows


def describe_methods() -> dict[str, Callable[[Any], dict[str, Any]]]:
    """What most CTs show, and what the task measures."""

    def measured(volume: Any) -> dict[str, Any]:
        from ...multimodal.facts.measure import measure

        facts = [fact for fact in measure(volume).facts if fact.evidence is not None]
        said = {fact.statement.kind: fact.statement.values for fact in facts}
        return {
            "region": said.get("region", {}).get("region"),
            "thickness": said.get("slice_spacing", {}).get("thickness"),
            "written": len(facts),
        }

    return {"majority facts": lambda volume: {**MAJORITY, "written": len(MAJORITY)}, OWN: measured}


METHODS: dict[str, Callable[[], dict[str, Any]]] = {
    "translate": translate_methods, "radiograph": radiograph_methods, "describe": describe_methods,
}  # fmt: skip
MODALITY_PROTOCOLS: dict[str, Callable[..., list[Row]]] = {
    "translate": translate_rows, "radiograph": radiograph_rows, "describe": describe_rows,
}  # fmt: skip


def _row(task: str, loaded: LoadedCase, method: str, values: dict[str, float], seconds: float) -> Row:
    case = loaded.case
    return Row(task, case.name, case.patient or case.name, "", method, values, seconds)
