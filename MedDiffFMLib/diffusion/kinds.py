"""Kinds of denoiser by name, as weight files and the command line say them; imports no torch."""

from __future__ import annotations

EDM = "edm"
COSINE_EPSILON = "cosine-epsilon"
DENOISER_KINDS = (EDM, COSINE_EPSILON)
