"""What the front door, ``import MedDiffFMLib as mdf``, is made of; ``MedDiffFMLib/__init__.py`` names its parts."""
