"""A line for a prompt: it completes what is being written, and shows what was understood of it and what was not."""

from html import escape

import qt
from slicer.i18n import tr as _


class PromptEditor:
    """The line, chips of what was understood, and a sentence about the rest.

    :param text: ``MedDiffFMLib.tasks.inputs.Text`` that is written in the words of facts.
    """

    def __init__(self, text):
        self._steers = text.steers
        self.widget = qt.QWidget()
        column = qt.QVBoxLayout(self.widget)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        self.edit = qt.QLineEdit()
        self.chips, self.rest = _label(), _label()
        self.chips.textFormat = qt.Qt.RichText
        for row in (self.edit, self.chips, self.rest):
            column.addWidget(row)
        self._completer, self._phrases = qt.QCompleter(), qt.QStringListModel()
        self._completer.setModel(self._phrases)
        self._completer.setCompletionMode(qt.QCompleter.UnfilteredPopupCompletion)  # the library has chosen
        self._completer.setWidget(self.edit)
        self._completer.connect("activated(QString)", self._complete)
        self.edit.connect("textEdited(QString)", self._suggest)
        self.edit.connect("textChanged(QString)", self._show)

    def _suggest(self, text):
        """Offer phrases while the user writes at the end of the line."""
        from MedDiffFMLib.multimodal.facts.vocabulary import suggestions

        phrases = suggestions(text) if self.edit.cursorPosition == len(text) else []
        self._phrases.setStringList(phrases)
        if phrases:
            self._completer.complete()
        else:
            self._completer.popup().hide()

    def _complete(self, phrase):
        from MedDiffFMLib.multimodal.facts.vocabulary import completed

        self.edit.text = completed(self.edit.text, phrase)

    def _show(self, text):
        """A chip for each thing that was understood; in italics where nothing brings it about."""
        from MedDiffFMLib.multimodal.facts.prompt import understand_prompt
        from MedDiffFMLib.multimodal.facts.vocabulary import in_short

        understood = understand_prompt(text)
        chips = [_chip(self.chips, in_short(one), self._isSteered(one)) for one in understood.statements]
        if not all(map(self._isSteered, understood.statements)):
            chips.append(_("(in italics: only measured in the result)").replace(" ", "&nbsp;"))
        self.chips.text = " ".join(chips)
        self.rest.text = (
            _("Not understood: {words}.").format(words=_withNear(understood.rest)) if understood.rest else ""
        )
        for label in (self.chips, self.rest):
            label.visible = bool(label.text)

    def _isSteered(self, statement):
        return not self._steers or statement.kind in self._steers


def _label():
    label = qt.QLabel()
    label.wordWrap = True
    label.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Minimum)  # words must not widen the panel
    label.hide()
    return label


def _chip(label, name, plain):
    """Words on the color that the user's style has for buttons that are off."""
    background = label.palette.color(qt.QPalette.Midlight).name()
    words = escape(name).replace(" ", "&nbsp;")
    return f'<span style="background-color:{background}">&nbsp;{words if plain else f"<i>{words}</i>"}&nbsp;</span>'


def _withNear(words):
    """The words, each with those known ones that it may be a slip of."""
    from MedDiffFMLib.multimodal.facts.vocabulary import nearest

    found = [(word, _(" or ").join(nearest(word))) for word in words]
    return ", ".join(_("{word} ({near}?)").format(word=word, near=near) if near else word for word, near in found)
