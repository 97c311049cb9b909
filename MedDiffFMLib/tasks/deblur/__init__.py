"""Deblurring: sharpens what the reconstruction kernel blurred."""
