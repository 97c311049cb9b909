"""Weight files and loaded models. Files are safetensors with a JSON description inside; pickles are refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.atomic_files import atomic_path
from ..core.errors import ModelError, OutputError, expected
from ..core.file_hash import file_sha256
from ..core.safe_load import parse_json
from .names import DEFAULT_MODEL

if TYPE_CHECKING:
    import torch

    from ..inference.engine import Engine

FORMAT = "meddifffm-prior-1"
_SEAL = "sha256"
"""Key of the checksum in a file's description; older files have none."""


@dataclass
class FoundationModel:
    """A prior that is ready to run.

    Attributes:
        name: catalogue name or file stem.
        sha256: of the weight file.
        config: what the file says of itself: network, denoiser, training.
        calibration: residual statistics on normal tissue for the anomaly map; empty if the file has none.
        engine: denoiser on its device, with precision, batching and out-of-memory fallback.
    """

    name: str
    sha256: str
    config: dict[str, Any]
    engine: Engine
    calibration: dict[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> str:
        """Where the network runs, "cpu" or "cuda:0"."""
        return str(self.engine.device)

    @property
    def precision(self) -> str:
        """Of the network's arithmetic."""
        return self.engine.precision


def check_sha256(path: Path, expected: str | None) -> str:
    """SHA-256 of a weight file; raises ModelError where the catalogue says another."""
    digest = file_sha256(path)
    if expected is not None and digest != expected:
        raise ModelError(
            f"The SHA-256 of {path.name} is {digest[:12]}..., the catalogue says {expected[:12]}...",
            "The file was changed or damaged; fetch it again.",
        )
    return digest


def save_model(
    path: Path, state: dict[str, torch.Tensor], config: dict[str, Any], calibration: dict[str, Any] | None = None
) -> str:
    """Write weights in half precision, atomically; returns the SHA-256.

    Args:
        state: the denoiser's state dict.
        config: at least ``network`` (fields of its config; ``network_name``, row of NETWORKS, where it is not the
            first) and ``denoiser`` (kind).
    """
    metadata = {"format": FORMAT, "config": json.dumps(config), "calibration": json.dumps(calibration or {})}
    return write_weights(path, state, metadata)


def write_weights(path: Path, state: dict[str, torch.Tensor], metadata: dict[str, str]) -> str:
    """Write tensors in half precision with their description, atomically; returns the SHA-256.

    Raises:
        OutputError: no permission or space.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    halves = {
        name: (t.to(torch.float16) if t.is_floating_point() else t).cpu().contiguous().clone()
        for name, t in state.items()
    }
    sealed = {**metadata, _SEAL: _seal(halves, metadata)}
    try:
        with atomic_path(path, overwrite=True) as temporary:
            save_file(halves, str(temporary), metadata=sealed)
    except SafetensorError as error:  # how the library tells of a full disk
        raise OutputError(
            f"The weights cannot be written to {path}: {error}.", "Free some space, or choose another folder."
        ) from error
    return file_sha256(path)


def _seal(state: dict[str, torch.Tensor], metadata: dict[str, str]) -> str:
    """SHA-256 of tensors and description, kept in the file itself: a damaged bit shows without any catalogue."""
    import torch

    digest = hashlib.sha256(json.dumps({k: v for k, v in metadata.items() if k != _SEAL}, sort_keys=True).encode())
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_metadata(path: Path) -> dict[str, str]:
    """The description in a safetensors file; raises ModelError for a missing, damaged or pickled one."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ModelError(
            f"There is no weight file {path}.", "Check the path, or use a name that `meddifffm models` lists."
        )
    with open(path, "rb") as stream:
        start = stream.read(9)
    # A safetensors file begins with eight bytes that tell how long its header is, and the header with a brace. The
    # first byte may be anything: every 32nd file would pass for a pickle by that alone.
    if start[:2] == b"PK" or (start[:1] == b"\x80" and start[8:] != b"{"):
        raise ModelError(
            f"{path.name} is a pickle file, which can run code when it is opened.",
            "Only safetensors weights are accepted; convert it in an environment that you trust.",
        )
    try:
        with safe_open(str(path), framework="pt") as stream:
            return stream.metadata() or {}
    except (SafetensorError, OSError) as error:  # the library words it differently from version to version
        raise ModelError(
            f"{path.name} is not a readable safetensors file: it is truncated, damaged, or of another format.",
            "Fetch it again.",
        ) from error


def read_metadata_of(path: Path, kind: str, what: str, remedy: str) -> dict[str, str]:
    """The description in a file that must be of one format.

    Args:
        kind: the format.
        what: the file should hold, and
        remedy: for the message.

    Raises:
        ModelError: missing, damaged, a pickle, or of another format.
    """
    metadata = read_metadata(path)
    found = metadata.get("format", "unknown")
    if found != kind:
        raise ModelError(f"{path.name} holds no {what} ({found!r}, not {kind!r}).", remedy)
    return metadata


def read_header(path: Path) -> dict[str, Any]:
    """Format, config and calibration of a weight file; raises ModelError for anything that is not one of ours."""
    remedy = "Use weights made by `meddifffm pretrain` or listed by `meddifffm models`."
    metadata = read_metadata_of(path, FORMAT, "MedDiff-FM prior", remedy)
    try:
        config, calibration = parse_json(metadata["config"]), parse_json(metadata.get("calibration", "{}"))
        if not (isinstance(config, dict) and isinstance(config["network"], dict) and isinstance(calibration, dict)):
            raise ValueError("no object")
    except (KeyError, ValueError) as error:
        raise ModelError(f"{path.name} has a damaged description.", "Fetch it again.") from error
    return {"format": FORMAT, "config": config, "calibration": calibration}


def build_denoiser(config: dict[str, Any]) -> torch.nn.Module:
    """Network and denoiser as a config describes them, with fresh weights."""
    from ..diffusion.denoiser import DENOISERS
    from ..networks.registry import build_network, network_config

    network = network_config(config)
    try:
        return DENOISERS[config["denoiser"]](build_network(network))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"The model's description does not fit this version ({error}).", "Update MedDiff-FM."
        ) from error


def load_denoiser(path: Path, header: dict[str, Any]) -> torch.nn.Module:
    """The trained denoiser in float32 on the CPU."""
    import torch

    with torch.device("meta"):  # sizes without memory: a damaged description may ask for terabytes
        described = build_denoiser(header["config"]).state_dict()
    check_shapes(path, {name: tuple(tensor.shape) for name, tensor in described.items()})
    denoiser = build_denoiser(header["config"])
    state = read_weights(path)
    try:
        denoiser.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise ModelError(
            f"The weights in {path.name} do not fit its description ({first}).", "Fetch it again."
        ) from error
    return denoiser.eval().requires_grad_(False)


def check_shapes(path: Path, described: dict[str, tuple[int, ...]]) -> None:
    """Compare the tensors in a file with those of its description, before memory is taken for either.

    Raises:
        ModelError: they differ.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as stream:
            stored = {name: tuple(stream.get_slice(name).get_shape()) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path.name} is not a readable safetensors file.", "Fetch it again.") from error
    different = sorted(name for name in {*described, *stored} if described.get(name) != stored.get(name))
    if different:
        raise ModelError(
            f"The weights in {path.name} do not fit its description (first at {different[0][:80]!r}).",
            "Fetch it again.",
        )


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file in float32; raises ModelError where they are damaged or not finite."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        stored, metadata = load_file(str(path)), read_metadata(path)
    except (SafetensorError, RuntimeError, OSError) as error:
        if (failure := expected(error)) is not None:
            raise failure from error
        first = str(error).splitlines()[0]
        raise ModelError(f"The weights in {path.name} cannot be read ({first}).", "Fetch it again.") from error
    if metadata.get(_SEAL, seal := _seal(stored, metadata)) != seal:
        raise ModelError(f"{path.name} was changed or damaged: its own checksum does not fit.", "Fetch it again.")
    state = {name: tensor.float() for name, tensor in stored.items()}
    if not all(bool(torch.isfinite(t).all()) for t in state.values()):
        raise ModelError(f"{path.name} holds weights that are not finite.", "Fetch it again; it is damaged.")
    return state


def load_model(spec: str = DEFAULT_MODEL, *, device: str = "auto", precision: str = "auto") -> FoundationModel:
    """Load a prior by catalogue name or file path.

    Args:
        spec: name from the catalogue, or path of a .safetensors file.
        device: "auto" (a usable GPU if there is one, else the CPU), "cpu", "cuda", "cuda:1", "xpu", "mps".
        precision: "auto" (bfloat16 where the device computes it), "float32", "bfloat16".

    Raises:
        ModelError: unknown name, missing, damaged, foreign or tampered file.
        DeviceError: the device is not there.
    """
    from ..inference.engine import Engine
    from .catalogue import resolve

    name, path, listed = resolve(spec)
    header = read_header(path)
    digest = check_sha256(path, listed)
    engine = Engine(load_denoiser(path, header), device=device, precision=precision)
    return FoundationModel(name, digest, header["config"], engine, header["calibration"])
