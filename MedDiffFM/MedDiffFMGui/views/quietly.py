"""Widgets that show something without telling that it changed."""

from contextlib import contextmanager


@contextmanager
def quiet(widget):
    """Signals of the widget are held back meanwhile."""
    wasBlocked = widget.blockSignals(True)
    try:
        yield
    finally:
        widget.blockSignals(wasBlocked)


def setQuietly(widget, value):
    """Show a bool as checked, a string as text, a number as value."""
    with quiet(widget):
        if isinstance(value, bool):
            widget.checked = value
        elif isinstance(value, str):
            widget.text = value
        else:
            widget.value = value
