"""Encoder of what is said about an image: a set of statements, in whatever order and however many.

Words are known by themselves and by their parts of three letters, so that one that was never seen is not nothing;
numbers by their value, so that 34 is near 35. Each statement becomes one vector, and two transformer layers read them
together.
"""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .encoders import SIZE, centering

WORDS, TRIGRAMS, PIECES = 1024, 2048, 8
"""Rows of the tables of words and of parts of words, and so many parts of one are looked at."""
LONGEST, MOST = 24, 24
"""Words of a statement, statements of a text: what goes beyond is not read."""
WIDTH = 96
_TOKEN = re.compile(r"-?\d+(?:\.\d+)?|[a-z]+|%")
_SCALES = (0.5, 1.0, 2.0, 4.0, 8.0)
WAVES = 4 * len(_SCALES)


class TextEncoder(nn.Module):
    """Texts -> unit vectors (B, SIZE)."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH, padding_idx=0)
        self.trigrams = nn.Embedding(TRIGRAMS, WIDTH, padding_idx=0)
        self.number = nn.Linear(WAVES, WIDTH, bias=False)
        self.place = nn.Parameter(torch.randn(LONGEST, WIDTH) / 4)
        self.statement = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
        )
        layer = nn.TransformerEncoderLayer(
            WIDTH, 4, 2 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.together = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, SIZE))
        self.norm = centering()

    def forward(self, words: torch.Tensor, trigrams: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Vectors of texts as :func:`encode_texts` gives them."""
        used = words > 0
        vectors = self.words(words) + self.trigrams(trigrams).sum(-2) + self.number(numbers)
        vectors = vectors * (1 + self.place[: words.shape[2]]) * used[..., None]
        statements = self.statement(vectors.sum(2) / used.sum(2, keepdim=True).clamp(min=1).sqrt())
        said = used.any(2)
        said[:, 0] |= ~said.any(1)  # a text that says nothing is one empty statement
        read = self.together(statements, src_key_padding_mask=~said) * said[..., None]
        vectors = self.norm(self.out(read.sum(1) / said.sum(1, keepdim=True)).float())
        return functional.normalize(vectors, dim=-1)


def encode_texts(texts: Sequence[Sequence[str]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Numbers of words (B, S, T) and their parts (B, S, T, 8), and waves of the numbers among them (B, S, T, 20).

    Args:
        texts: of each image its statements.
    """
    tokens = [[_TOKEN.findall(line.lower())[:LONGEST] for line in text[:MOST]] for text in texts]
    most = max((len(text) for text in tokens), default=1) or 1
    longest = max((len(line) for text in tokens for line in text), default=1) or 1
    shape = (len(tokens), most, longest)
    words, pieces = np.zeros(shape, np.int64), np.zeros((*shape, PIECES), np.int64)
    waves = np.zeros((*shape, WAVES), np.float32)
    for b, text in enumerate(tokens):
        for s, line in enumerate(text):
            for t, token in enumerate(line):
                words[b, s, t], pieces[b, s, t], waves[b, s, t] = _token(token)
    return torch.from_numpy(words), torch.from_numpy(pieces), torch.from_numpy(waves)


@functools.lru_cache(maxsize=20_000)
def _token(token: str) -> tuple[int, tuple[int, ...], tuple[float, ...]]:
    """Row of the word, rows of its parts, waves of its value."""
    if token[-1].isdigit():
        return 1, (0,) * PIECES, _waves(float(token))
    padded = f"<{token}>"
    parts = [padded[n : n + 3] for n in range(len(padded) - 2)][:PIECES]
    rows = [_row(part, TRIGRAMS) for part in parts]
    return 1 + _row(token, WORDS - 1), (*rows, *[0] * (PIECES - len(rows))), (0.0,) * WAVES


def _row(text: str, rows: int) -> int:
    """A row from 1 on."""
    return 1 + zlib.crc32(text.encode()) % (rows - 1)


def _waves(value: float) -> tuple[float, ...]:
    """Sines and cosines of the value and of its logarithm, which tell small numbers as well as large ones."""
    size = np.sign(value) * np.log1p(abs(value))
    angles = np.outer([size, value / 100], _SCALES).ravel()
    return (*np.sin(angles).tolist(), *np.cos(angles).tolist())
