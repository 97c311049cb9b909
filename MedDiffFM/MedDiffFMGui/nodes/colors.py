"""Colors of maps, as nodes."""

import slicer

INFERNO = "vtkMRMLColorTableNodeFileInferno.txt"
DIFFERENCE_COLORS = "MedDiff-FM difference"
LESS_COLORS = (0.05, 0.25, 0.60), (0.45, 0.80, 1.0)
MORE_COLORS = (0.60, 0.25, 0.0), (1.0, 0.80, 0.25)
"""Blue and orange, from little to much; never red against green."""
UNSEEN = 0.1
"""Share of the window around zero that is transparent. Slice views know no half-transparent colors."""


def differenceColors():
    """Blue below zero, orange above, and nothing near zero: the CT stays visible."""
    colors = slicer.mrmlScene.GetFirstNodeByName(DIFFERENCE_COLORS)
    if not (colors and colors.IsA("vtkMRMLColorTableNode")):
        new = slicer.vtkMRMLColorTableNode()
        new.SetName(DIFFERENCE_COLORS)
        new.SetTypeToUser()
        new.SetNumberOfColors(256)
        new.SetHideFromEditors(True)
        colors = slicer.mrmlScene.AddNode(new)
    for index in range(256):
        position = 2 * index / 255 - 1
        weak, strong = MORE_COLORS if position > 0 else LESS_COLORS
        color = [low + abs(position) * (high - low) for low, high in zip(weak, strong, strict=True)]
        colors.SetColor(index, "", *color, float(abs(position) > UNSEEN))  # also in a scene of an older version
    return colors
