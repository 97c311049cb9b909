"""The two buttons of a result: keep it or not; of one that was kept, only to close it."""

from slicer.i18n import tr as _


def showDecision(acceptButton, discardButton, accepted):
    """Offer what can still be decided.

    :param accepted: the result is the user's, so nothing can remove it from here.
    """
    acceptButton.visible = not accepted
    discardButton.text = _("Close") if accepted else _("Discard")
    discardButton.toolTip = (
        _("Shows the views as they were before; the result stays in the scene, for it was accepted.")
        if accepted
        else _("Removes the result from the scene and shows the views as they were before.")
    )
