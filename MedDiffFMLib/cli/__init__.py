"""The command line ``meddifffm``."""

import os

# The threads of NumPy's BLAS spin after each small product of a sparse solver, on the cores that the network and the
# loader's workers need. It reads this once, when NumPy is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from .main import main  # noqa: E402

__all__ = ["main"]
