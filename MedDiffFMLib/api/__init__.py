"""Parts of the front door, ``import MedDiffFMLib as mdf``; ``MedDiffFMLib/__init__.py`` names its parts."""
