"""Panels of the module."""
