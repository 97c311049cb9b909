"""Measuring: quality beside baselines, speed beside other implementations. Not in the Slicer package."""
