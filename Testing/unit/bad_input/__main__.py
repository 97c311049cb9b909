"""Writes the page anew."""

from . import PAGE, page

PAGE.write_text(page(), encoding="utf-8")
