"""Processes beside Slicer: the worker, commands of the library, installation."""
