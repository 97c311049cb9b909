"""Text codecs by name: what turns sentences into vectors, such as a model of a laboratory that has read many reports.

A codec is a plug-in: a package offers it as an entry point of the group ``meddifffm.text_codecs``, under the name that
``meddifffm multimodal train --text-codec`` and weight files call it by. Weights never name code, only an installed
codec. Imports no torch.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

import numpy as np

from ..core.errors import DependencyError, MedDiffFMError, ModelError

GROUP = "meddifffm.text_codecs"
_AT_ONCE = 256
"""Sentences that a codec gets in one call at most."""


class TextCodec(Protocol):
    """Sentences -> vectors of a fixed size, the same ones each time.

    Attributes:
        name: under which it is offered.
        version: changes when its vectors do; weights are refused with another one.
        size: of its vectors.
    """

    name: str
    version: str
    size: int

    def vectors(self, sentences: Sequence[str]) -> np.ndarray:
        """Vectors (n, size) of n sentences, at most 256 at a time; finite, float32 or what becomes that."""


class HashedNgrams:
    """Words, pairs of words and groups of three letters, counted in 512 columns by their hash.

    No model, nothing to download: texts are alike as far as they share spelling (feature hashing with signs,
    Weinberger et al., ICML 2009). It knows no synonyms and no size of numbers.
    """

    name = "hashed-ngrams"
    version = "1"
    size = 512

    def vectors(self, sentences: Sequence[str]) -> np.ndarray:
        """Unit vectors (n, 512) float32; zero for a text without letters and digits."""
        table = np.zeros((len(sentences), self.size), np.float32)
        for row, sentence in zip(table, sentences, strict=True):
            for gram in self._grams(sentence):
                code = zlib.crc32(gram.encode())
                row[code % self.size] += 1.0 if code >> 31 else -1.0
        return table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-9)

    @staticmethod
    def _grams(sentence: str) -> list[str]:
        words = re.findall(r"[^\W_]+(?:\.\d+)?", sentence.lower())
        pairs = [f"{one} {other}" for one, other in zip(words, words[1:], strict=False)]
        letters = [f"_{word}_"[n : n + 3] for word in words if word.isalpha() for n in range(len(word))]
        return [*words, *pairs, *letters]


CODECS: dict[str, Callable[[], TextCodec]] = {HashedNgrams.name: HashedNgrams}
"""Those that ship; no plug-in takes their names."""


def codec_names() -> list[str]:
    """Names of all that can be used here."""
    return sorted({*CODECS, *(point.name for point in entry_points(group=GROUP))})


def find_codec(name: str) -> TextCodec:
    """A codec by name.

    Raises:
        DependencyError: none of that name is installed.
        ModelError: it cannot be loaded, or is none.
    """
    if name in CODECS:
        return CODECS[name]()
    found = tuple(entry_points(group=GROUP, name=name))
    if not found:
        raise DependencyError(
            f"There is no text codec {name!r:.60} here, but {', '.join(codec_names())}.",
            f"Install the package that offers it as an entry point of the group {GROUP}.",
        )
    return _loaded(found[0])


def _loaded(point: EntryPoint) -> TextCodec:
    """The codec of an entry point, whose code is foreign: whatever it raises is told as its failure."""
    try:
        codec: Any = point.load()()
    except MedDiffFMError:
        raise
    except Exception as error:
        raise ModelError(
            f"The text codec {point.name!r} cannot be loaded ({type(error).__name__}: {error}).",
            "Repair the package that offers it.",
        ) from error
    said = [getattr(codec, name, None) for name in ("name", "version", "size")]
    if said[0] != point.name or not isinstance(said[1], str) or not (type(said[2]) is int and 0 < said[2] <= 65_536):
        raise ModelError(
            f"The text codec {point.name!r} says that its name, version and size are {said}.",
            "Have it say the name under which it is offered, a text, and the whole number of its vectors' size.",
        )
    return codec  # type: ignore[no-any-return]


class Reader:
    """Memory of what a codec has read: each sentence is read once.

    Copies of a network share it: a codec may be far larger than the network.
    """

    def __init__(self, codec: TextCodec) -> None:
        self.codec = codec
        self.table = np.zeros((0, codec.size), np.float32)
        self._rows: dict[str, int] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Reader:
        return self

    def rows(self, sentences: Sequence[str]) -> np.ndarray:
        """Rows of the table (n,) int64 that hold the vectors of sentences.

        Raises:
            ModelError: the codec gives other than finite vectors of its size.
        """
        new = [sentence for sentence in dict.fromkeys(sentences) if sentence not in self._rows]
        if new:
            read = [self._read(new[n : n + _AT_ONCE]) for n in range(0, len(new), _AT_ONCE)]
            self._rows |= {sentence: len(self.table) + n for n, sentence in enumerate(new)}
            self.table = np.concatenate([self.table, *read])
        return np.array([self._rows[sentence] for sentence in sentences], np.int64)

    def vectors(self, sentences: Sequence[str]) -> np.ndarray:
        """Vectors (n, size) float32 of sentences."""
        rows = self.rows(sentences)
        return self.table[rows]

    def _read(self, sentences: Sequence[str]) -> np.ndarray:
        found = np.asarray(self.codec.vectors(sentences), np.float32)
        if found.shape != (len(sentences), self.codec.size) or not np.isfinite(found).all():
            raise ModelError(
                f"The text codec {self.codec.name!r} gave {found.shape} for {len(sentences)} sentences, "
                f"or numbers that are not finite; it says that its vectors have {self.codec.size}.",
                "Repair the package that offers it.",
            )
        return found
