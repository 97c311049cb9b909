"""``python -m MedDiffFMLib.demo``: the demo."""

import sys
from importlib.util import find_spec

if __name__ == "__main__":
    if find_spec("MedDiffFMLib.demo.run") is None:
        sys.exit("error: The demo is not in this installation, as in Slicer's package. Run it in a checkout.")
    from .run import main

    sys.exit(main())
