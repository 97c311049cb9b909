"""Runs of tasks: from settings to results in the scene."""
