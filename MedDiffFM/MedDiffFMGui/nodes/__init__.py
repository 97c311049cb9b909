"""Nodes of the scene: volumes, results, segmentations."""
