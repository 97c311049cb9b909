"""NIfTI-1 and NIfTI-2 files (https://nifti.nimh.nih.gov)."""

from __future__ import annotations

import contextlib
import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np

from ...core.visible_text import visible
from ..segments import Segment
from ..source import Reading
from ..volume import Volume
from .common import (
    MAX_HEADER,
    SYNTHETIC_MARK,
    Portions,
    check_promise,
    damaged,
    is_synthetic,
    parsing,
    refuse_not_3d,
    truncated,
)
from .nifti_geometry import geometry_of

_LABEL = re.compile(rb'<Label\b[^>]*\bKey="(\d{1,5})"[^>]*>\s*(?:<!\[CDATA\[)?([^<\]]{1,200})')


def read_nifti(path: Path, modality: str, reading: Reading) -> Volume:
    """Read a 3-D scalar NIfTI; trailing axes of length 1 are dropped, slope and intercept applied.

    Voxels are integers when file, slope and intercept are, else float32.

    Args:
        reading: opens the file.

    Raises:
        InputError: wrong magic, damaged, truncated, or not 3-D scalar.
    """
    with reading.open(path) as plain, contextlib.ExitStack() as stack:
        compressed = path.name.lower().endswith(".gz")
        file: Any = stack.enter_context(gzip.GzipFile(fileobj=plain)) if compressed else plain
        with parsing(lambda error: damaged(path.name, "NIfTI", "its header makes no sense")):
            header, sizes, proxy = _image(Portions(file))
        return _volume(path, header, sizes, proxy, modality, "gzip" if compressed else "raw")


def _image(file: Portions) -> tuple[Any, np.ndarray, Any]:
    """Header, its voxel sizes as they stand there, and what will read the voxels."""
    import nibabel
    from nibabel.arrayproxy import ArrayProxy
    from nibabel.fileholders import FileHolder

    size = file.read(4)
    file.seek(0)
    kinds = {348: nibabel.Nifti1Image, 540: nibabel.Nifti2Image}
    kind = kinds.get(int.from_bytes(size, "little")) or kinds[int.from_bytes(size, "big")]
    holder = FileHolder(fileobj=file)  # type: ignore[arg-type]
    image = kind.from_file_map({"header": holder, "image": holder}, mmap=False)
    header, proxy = image.header, image.dataobj
    if proxy.offset == 0:  # what some programs write for "behind the header"
        spec = (header.get_data_shape(), header.get_data_dtype(), header.single_vox_offset, proxy.slope, proxy.inter)
        proxy = ArrayProxy(file, spec, mmap=False)  # type: ignore[arg-type]
    if not header.sizeof_hdr <= proxy.offset <= MAX_HEADER:
        raise ValueError("the voxels begin within the header, or far behind it")
    file.seek(0)
    sizes = np.array(kind.header_class.from_fileobj(file, check=False)["pixdim"][1:4], dtype=float)
    return header, sizes, proxy


def _volume(path: Path, header: Any, sizes: np.ndarray, proxy: Any, modality: str, encoding: str) -> Volume:
    """The voxels, once the header's promises are known to be possible."""
    shape = tuple(int(n) for n in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    dtype = header.get_data_dtype()
    vector = dtype.kind not in "iuf" or (len(shape) == 5 and shape[4] > 1)
    refuse_not_3d(path.name, shape, ["vector"] if vector else [])
    check_promise(path.name, shape, dtype.itemsize, path.stat().st_size, encoding)
    with parsing(lambda error: truncated(path.name, f"its voxels do not fill {' x '.join(map(str, shape))}")):
        stored = proxy.get_unscaled().reshape(shape, order="F")
    with parsing(lambda error: damaged(path.name, "NIfTI", error)):
        voxels = _rescaled(np.asarray(stored).T, proxy.slope, proxy.inter)
        matrix, notes = geometry_of(path.name, header, sizes)
    synthetic = is_synthetic(bytes(header["descrip"].item()).decode("latin-1"))
    segments = _segments(header) if modality == "mask" else ()
    return Volume(voxels, matrix, modality, notes, synthetic, segments=segments)


def _segments(header: Any) -> tuple[Segment, ...]:
    """Names of labels in a header extension, as TotalSegmentator and Connectome Workbench write them (XML)."""
    texts = [bytes(e.text, "utf-8") if isinstance(e.text, str) else bytes(e.content) for e in header.extensions]
    found = _LABEL.findall(b"".join(texts)[:MAX_HEADER])
    numbered = {int(number): visible(name.decode("utf-8", "replace").strip()) for number, name in found}
    return tuple(Segment(name, number, (number,)) for number, name in sorted(numbered.items()) if number > 0)


def write_nifti(path: Path, voxels: np.ndarray, ijk_to_ras: np.ndarray, synthetic: bool = False) -> None:
    """Write (k, j, i) voxels as NIfTI-1 with sform and qform; equal input gives equal bytes.

    Args:
        synthetic: say in the header that the image was made in whole or in part.
    """
    import nibabel

    image = nibabel.Nifti1Image(voxels.T, ijk_to_ras, dtype=voxels.dtype)
    image.header.set_xyzt_units("mm")
    image.set_sform(ijk_to_ras, code="scanner")
    image.set_qform(ijk_to_ras, code="scanner")
    image.header.set_slope_inter(1, 0)
    if synthetic:
        image.header["descrip"] = SYNTHETIC_MARK.encode("ascii")
    with path.open("xb") as file, contextlib.ExitStack() as stack:
        target: Any = file
        if path.name.lower().endswith(".gz"):  # neither time nor temporary name go into the gzip header
            target = stack.enter_context(gzip.GzipFile("", "wb", 1, file, mtime=0))
        image.to_stream(target)


def _rescaled(stored: np.ndarray, slope: float, inter: float) -> np.ndarray:
    """slope * stored + inter: as integers where all three are, else float32."""
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    if slope == 1 and inter == 0:
        return stored
    if stored.dtype.kind in "iu" and stored.dtype.itemsize <= 4 and slope == 1 and inter == round(inter):
        shifted = stored.astype(np.int64) + int(inter)
        fits = np.iinfo(np.int16).min <= shifted.min() and shifted.max() <= np.iinfo(np.int16).max
        return shifted.astype(np.int16 if fits else np.int32)
    return stored.astype(np.float32) * np.float32(slope) + np.float32(inter)
