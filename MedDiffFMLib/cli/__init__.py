"""The command line ``meddifffm``."""

from .main import main

__all__ = ["main"]
