"""Panels, result display and worker process of the module: the only code that imports ``qt`` and ``slicer``.

In an installed extension the library lies beside this package, where Slicer finds it. In a source checkout it lies
one folder higher, and that checkout must win over any copy that pip installed.
"""

import sys
from pathlib import Path

_moduleFolder = Path(__file__).resolve().parents[1]
libraryFolder = next(folder for folder in (_moduleFolder, _moduleFolder.parent) if (folder / "MedDiffFMLib").is_dir())
if str(libraryFolder) not in sys.path:
    sys.path.insert(0, str(libraryFolder))
