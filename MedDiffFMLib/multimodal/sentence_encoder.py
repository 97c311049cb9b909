"""Encoder of what is said about an image by the vectors that a text codec gives its sentences.

In place of :mod:`.fact_encoder`, which reads facts by its own grammar. The codec is not trained; what is learned is how
its vectors are narrowed, weighed and summed, so that the order of the sentences does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..core.errors import InputError
from .encoders import SIZE, centering
from .fact_encoder import WIDTH
from .facts.fact import Statement
from .spoken_facts import MOST, SAID, sentence_of
from .text_codecs import Reader, TextCodec

WORDINGS = 3
"""Ways of saying a fact that are read in training."""
_ENDS = re.compile(r"[.;!?](?:\s+|$)|\n+")


class Spoken(NamedTuple):
    """Sentences of texts.

    Attributes:
        vectors: (B, MOST, codec's size) float32.
        said: (B, MOST) float32, 0 where nothing is said.
    """

    vectors: torch.Tensor
    said: torch.Tensor


class SentenceEncoder(nn.Module):
    """Texts -> unit vectors (B, SIZE)."""

    center: torch.Tensor
    scale: torch.Tensor

    def __init__(self, codec: TextCodec) -> None:
        super().__init__()
        self.reader = Reader(codec)
        self.register_buffer("center", torch.zeros(codec.size))
        self.register_buffer("scale", torch.ones(1))
        self.narrow = nn.Linear(codec.size, WIDTH)
        self.fact = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
        )
        self.out = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * SIZE), nn.GELU(), nn.Linear(2 * SIZE, SIZE))
        self.norm = centering()

    @property
    def codec(self) -> TextCodec:
        """That reads the sentences."""
        return self.reader.codec

    def measure(self, texts: Sequence[Sequence[Statement]]) -> None:
        """Center and scale the codec's vectors as those of these texts are spread: most codecs give all texts a common
        part that is far larger than what tells them apart."""
        sentences = sorted({sentence_of(said) for text in texts for said in text if said.kind in SAID})
        if len(sentences) > 1:
            vectors = self.reader.vectors(sentences)
            center = vectors.mean(0)
            self.center.copy_(torch.from_numpy(center))
            self.scale.fill_(max(float(np.sqrt(np.square(vectors - center).mean())), 1e-6))

    def forward(self, spoken: Spoken) -> torch.Tensor:
        """Vectors of texts as :meth:`told` gives them."""
        return self.centered(self.features(spoken))

    def features(self, spoken: Spoken) -> torch.Tensor:
        """What becomes vectors, (B, SIZE); each row by itself."""
        said = spoken.said[..., None]
        facts = self.narrow((spoken.vectors - self.center) / self.scale)
        facts = (facts + self.fact(facts)) * said
        features: torch.Tensor = self.out(facts.sum(-2)).float()
        return features

    def centered(self, features: torch.Tensor) -> torch.Tensor:
        """Unit vectors of features; in training all samples of a batch have to be among the rows."""
        return functional.normalize(self.norm(features), dim=-1)

    def told(self, texts: Sequence[Sequence[Statement]]) -> Spoken:
        """Sentences of facts; facts of other kinds are left out."""
        return self.spoken([[sentence_of(said) for said in text if said.kind in SAID] for text in texts])

    def spoken(self, texts: Sequence[Sequence[str]]) -> Spoken:
        """Vectors of texts, of each its sentences; those beyond the first ``MOST`` are not read."""
        vectors = np.zeros((len(texts), MOST, self.codec.size), np.float32)
        said = np.zeros((len(texts), MOST), np.float32)
        places = [(row, n) for row, text in enumerate(texts) for n in range(min(len(text), MOST))]
        if places:  # all in one call: the reader's memory grows once
            at = tuple(np.array(places).T)
            vectors[at], said[at] = self.reader.vectors([texts[row][n] for row, n in places]), 1
        return Spoken(torch.from_numpy(vectors), torch.from_numpy(said))

    def asked(self, prompt: str) -> tuple[Spoken, str]:
        """A user's words sentence by sentence, and how they were read.

        Raises:
            InputError: the prompt holds no sentence.
        """
        sentences = [part.strip() for part in _ENDS.split(prompt) if any(letter.isalnum() for letter in part)]
        if not sentences:
            raise InputError("The prompt says nothing.", "Write what to look for, such as: nodule in the right lung.")
        left = f" What comes after the first {MOST} sentences was not read." if len(sentences) > MOST else ""
        how = f"Read as it stands by the text codec {self.codec.name} {self.codec.version}.{left}"
        return self.spoken([sentences]), how
