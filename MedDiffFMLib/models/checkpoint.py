"""Weight files and loaded models. Files are safetensors with a JSON description inside; pickles are refused."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.atomic_files import atomic_path
from ..core.errors import ModelError, OutputError, expected
from ..core.file_hash import file_sha256
from ..core.safe_load import parse_json
from .eight_bits import from_eight_bits, to_eight_bits
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
        """Device on which the network runs, "cpu" or "cuda:0"."""
        return str(self.engine.device)

    @property
    def precision(self) -> str:
        """Of the network's arithmetic."""
        return self.engine.precision


@dataclass
class Weights:
    """Yield of one reading of a weight file: hash, description and tensors are of the same bytes.

    Attributes:
        path: of the file.
        sha256: of its bytes.
        metadata: its description.
        state: its tensors, float32.
    """

    path: Path
    sha256: str
    metadata: dict[str, str]
    state: dict[str, torch.Tensor]


def check_sha256(path: Path, expected: str | None) -> str:
    """SHA-256 of a weight file that is not loaded now; raises ModelError where the catalogue says another."""
    digest = file_sha256(path)
    _refuse_other(path, digest, expected)
    return digest


def _refuse_other(path: Path, digest: str, expected: str | None) -> None:
    if expected is not None and digest != expected:
        raise ModelError(
            f"The SHA-256 of {path.name} is {digest[:12]}..., the catalogue says {expected[:12]}...",
            "The file was changed or damaged; fetch it again.",
        )


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


def write_weights(
    path: Path, state: dict[str, torch.Tensor], metadata: dict[str, str], *, eight_bits: bool = False
) -> str:
    """Write tensors in half precision with their description, atomically; returns the SHA-256.

    Args:
        eight_bits: large tensors as whole numbers, see :mod:`.eight_bits`.

    Raises:
        OutputError: no permission or space.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    halves = {
        name: (t.to(torch.float16) if t.is_floating_point() else t).cpu().contiguous().clone()
        for name, t in (to_eight_bits(state) if eight_bits else state).items()
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

    _refuse_absent(path)
    with open(path, "rb") as stream:
        _refuse_pickle(path, stream.read(9))
    try:
        with safe_open(str(path), framework="pt") as stream:
            return stream.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _unreadable(path) from error


def _refuse_absent(path: Path) -> None:
    if not path.is_file():
        raise ModelError(
            f"There is no weight file {path}.", "Check the path, or use a name that `meddifffm models` lists."
        )


def _refuse_pickle(path: Path, start: bytes) -> None:
    # A safetensors file begins with eight bytes that tell how long its header is, and the header with a brace. The
    # first byte may be anything: every 32nd file would pass for a pickle by that alone.
    if start[:2] == b"PK" or (start[:1] == b"\x80" and start[8:] != b"{"):
        raise ModelError(
            f"{path.name} is a pickle file, which can run code when it is opened.",
            "Only safetensors weights are accepted; convert it in an environment that you trust.",
        )


def _unreadable(path: Path) -> ModelError:
    """In our words: those of the library differ from version to version."""
    return ModelError(
        f"{path.name} is not a readable safetensors file: it is truncated, damaged, or of another format.",
        "Fetch it again.",
    )


def check_format(path: Path, metadata: dict[str, str], kind: str, what: str, remedy: str) -> None:
    """Refuse a file whose description is not of one format.

    Args:
        kind: the format.
        what: the file should hold, and
        remedy: for the message.

    Raises:
        ModelError: another format, or none.
    """
    found = metadata.get("format", "unknown")
    if found != kind:
        raise ModelError(f"{path.name} holds no {what} ({found!r}, not {kind!r}).", remedy)


def read_header(path: Path) -> dict[str, Any]:
    """Format, config and calibration of a weight file; raises ModelError for anything that is not one of ours."""
    return header_of(path, read_metadata(path))


def header_of(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    """Format, config and calibration in a description; raises ModelError for anything that is not one of ours."""
    remedy = "Use weights made by `meddifffm pretrain` or listed by `meddifffm models`."
    check_format(path, metadata, FORMAT, "MedDiff-FM prior", remedy)
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


def load_denoiser(path: Path) -> torch.nn.Module:
    """The trained denoiser of a file, in float32 on the CPU."""
    return denoiser_of(read_weights(path))


def denoiser_of(weights: Weights) -> torch.nn.Module:
    """The trained denoiser in float32 on the CPU."""
    config = header_of(weights.path, weights.metadata)["config"]
    with without_memory():
        described = build_denoiser(config).state_dict()
    check_shapes(weights, {name: tuple(tensor.shape) for name, tensor in described.items()})
    denoiser = build_denoiser(config)
    try:
        denoiser.load_state_dict(weights.state)
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise ModelError(
            f"The weights in {weights.path.name} do not fit its description ({first}).", "Fetch it again."
        ) from error
    return denoiser.eval().requires_grad_(False)


@contextlib.contextmanager
def without_memory() -> Iterator[None]:
    """Make modules that have sizes alone: a damaged description may ask for terabytes.

    Initial values are not drawn either: PyTorch imports its compiler to draw normal ones without memory, for a second.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class NoValues(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if getattr(func, "__module__", None) == "torch.nn.init":
                return args[0] if args else kwargs["tensor"]
            return func(*args, **(kwargs or {}))

    with torch.device("meta"), NoValues():
        yield


def check_shapes(weights: Weights, described: dict[str, tuple[int, ...]]) -> None:
    """Compare the tensors in a file with those of its description, before memory is taken for the latter.

    Raises:
        ModelError: they differ.
    """
    stored = {name: tuple(tensor.shape) for name, tensor in weights.state.items()}
    different = sorted(name for name in {*described, *stored} if described.get(name) != stored.get(name))
    if different:
        raise ModelError(
            f"The weights in {weights.path.name} do not fit its description (first at {different[0][:80]!r}).",
            "Fetch it again.",
        )


def read_weights(path: Path, sha256: str | None = None) -> Weights:
    """Read a safetensors file once; tensors become float32.

    Args:
        sha256: what its bytes must have, None for any.

    Raises:
        ModelError: missing, a pickle, other bytes, damaged, or not finite.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    _refuse_absent(path)
    try:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        _refuse_other(path, digest, sha256)
        _refuse_pickle(path, content[:9])
        stored = load(content)
        metadata = parse_json(content[8 : 8 + int.from_bytes(content[:8], "little")].decode()).get("__metadata__", {})
    except (SafetensorError, RuntimeError, OSError, KeyError, ValueError, AttributeError) as error:
        if (failure := expected(error)) is not None:
            raise failure from error
        raise _unreadable(path) from error
    del content
    if metadata.get(_SEAL, seal := _seal(stored, metadata)) != seal:
        raise ModelError(f"{path.name} was changed or damaged: its own checksum does not fit.", "Fetch it again.")
    try:
        state = from_eight_bits(stored)
    except ValueError as error:
        raise _unreadable(path) from error
    if not all(bool(torch.isfinite(t).all()) for t in state.values()):
        raise ModelError(f"{path.name} holds weights that are not finite.", "Fetch it again; it is damaged.")
    return Weights(path, digest, metadata, state)


def load_model(spec: str = DEFAULT_MODEL, *, device: str = "auto", precision: str = "auto") -> FoundationModel:
    """Load a prior by catalogue name or file path.

    Args:
        spec: name from the catalogue, path of a .safetensors file, or ``hf://owner/name`` of the Hugging Face Hub.
        device: "auto" (a usable GPU if there is one, else the CPU), "cpu", "cuda", "cuda:1", "xpu", "mps".
        precision: "auto" (bfloat16 where the device computes it), "float32", "bfloat16".

    Raises:
        ModelError: unknown name, missing, damaged, foreign or tampered file.
        DeviceError: the device is not there.
    """
    from ..inference.engine import Engine
    from .catalogue import resolve

    name, path, listed = resolve(spec)
    read_header(path)  # refuses a file of another kind in its own words, before all of it is read
    weights = read_weights(path, listed)
    header = header_of(path, weights.metadata)
    engine = Engine(denoiser_of(weights), device=device, precision=precision)
    return FoundationModel(name, weights.sha256, header["config"], engine, header["calibration"])
