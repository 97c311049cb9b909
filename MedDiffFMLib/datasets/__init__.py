"""Datasets of CTs and masks: folders, datalists, checks, prepared cases."""
