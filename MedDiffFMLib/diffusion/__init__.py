"""Diffusion: denoisers, samplers, data consistency."""
