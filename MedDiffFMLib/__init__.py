"""MedDiff-FM: one 3-D CT diffusion prior behind many tools.

The library never imports ``slicer``, ``qt`` or ``ctk``. Importing it is cheap: torch and monai are imported inside
the functions that need them.
"""

__version__ = "0.1.0"
