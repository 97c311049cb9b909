"""Runs from files to files: one case, batches, outputs, reports, repetition."""
