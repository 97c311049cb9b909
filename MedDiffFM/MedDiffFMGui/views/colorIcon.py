"""A color as icon."""

import qt


def colorIcon(color):
    """A filled square.

    :param color: red, green, blue from 0 to 1.
    """
    square = qt.QPixmap(12, 12)
    square.fill(qt.QColor(*(round(255 * part) for part in color)))
    return qt.QIcon(square)
