"""Widgets for the parameters of one task, made from the library's own definitions."""

import ctk
import qt
from slicer.i18n import tr as _

from .cameraEditor import CameraEditor
from .modelCheck import fittingModels

SLIDER_SPAN = 50  # a wider range is too coarse for a slider in a panel of this width


class ParameterWidgets:
    """The widgets of one parameter dataclass in two forms: everyday parameters, and those under "More".

    :param parameters: the dataclass.
    :param form: QFormLayout of the everyday parameters.
    :param moreForm: QFormLayout of the advanced ones.
    :param onChanged: called without arguments when the user changed a value.
    """

    def __init__(self, parameters, form, moreForm, onChanged):
        from MedDiffFMLib.tasks.parameters import describe

        self._defaults = {}
        self.beginning = {}  # values that differ from the defaults when the user sees the task for the first time
        self._editors = {}
        self.hasAdvanced = False
        for field, info in describe(parameters):
            editor = _makeEditor(parameters, field, info, onChanged)
            editor.setToolTip(_toolTip(info, field.default))
            self._defaults[field.name], self._editors[field.name] = field.default, editor
            (moreForm if info.advanced else form).addRow(_(info.title or _caption(field.name)) + ":", editor.widget)
            self.hasAdvanced |= info.advanced
            if info.panel is not None:
                self.beginning[field.name] = info.panel

    def values(self):
        """The values that differ from their defaults, by name, JSON-ready."""
        values = {name: editor.value() for name, editor in self._editors.items()}
        return {name: value for name, value in values.items() if value != _plain(self._defaults[name])}

    def setModels(self, prior):
        """Offer the models of the catalogue that fit a prior, where a parameter names one.

        :param prior: name in the catalogue, or path of a weight file.
        """
        for editor in self._editors.values():
            if isinstance(editor, _ModelEditor):
                editor.offer(prior)

    def setScan(self, node):
        """Let a camera be seen through a scan.

        :param node: volume, None for none.
        """
        for editor in self._editors.values():
            if isinstance(editor, CameraEditor):
                editor.setScan(node)

    def setValues(self, values):
        """Show ``values``, and defaults for what is left out; does not call ``onChanged``."""
        for name, editor in self._editors.items():
            editor.setValue(values.get(name, _plain(self._defaults[name])))


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


def _caption(name):
    return name.replace("_", " ").capitalize()


def _toolTip(info, default):
    """Help, unit and limits in one sentence each."""
    parts = [_(info.help)]
    if info.minimum is not None and info.maximum is not None:
        unit = f" {info.unit}" if info.unit else ""
        parts.append(_("From {low:g} to {high:g}{unit}.").format(low=info.minimum, high=info.maximum, unit=unit))
    if default is not None:
        parts.append(_("Normally {value}.").format(value=default))
    return " ".join(parts)


def _makeEditor(parameters, field, info, onChanged):
    """The editor that fits the type of a field."""
    from MedDiffFMLib.tasks.parameters import element_type, tuple_length, value_types

    kind, optional = value_types(parameters)[field.name]
    if info.camera:
        return CameraEditor(onChanged)
    if info.words:
        return (_WordsEditor if info.others else _ChecksEditor)(info, onChanged)
    if kind is tuple:
        count = tuple_length(parameters, field.name) or 1
        return _TupleEditor([element_type(parameters, field.name)] * count, optional, field, info, onChanged)
    if kind is bool:
        return _CheckEditor(onChanged)
    if info.choices:
        return _ChoiceEditor(info, onChanged)
    if info.catalogue:
        return _ModelEditor(info.catalogue, onChanged)
    if kind is str:
        return _TextEditor(onChanged)
    span = None if info.minimum is None or info.maximum is None else info.maximum - info.minimum
    if kind is float and not optional and span is not None and span <= SLIDER_SPAN:
        return _SliderEditor(field, info, onChanged)
    return _NumberEditor(kind, optional, field, info, onChanged)


class _Editor:
    """One parameter: ``widget``, ``value()`` and ``setValue(value)``."""

    def __init__(self, widget, signal, onChanged):
        self.widget = widget
        self._onChanged = onChanged
        self._quiet = False
        widget.connect(signal, self._changed)

    def _changed(self):
        if not self._quiet:
            self._onChanged()

    def setToolTip(self, text):
        self.widget.toolTip = text

    def _show(self, value):
        raise NotImplementedError

    def setValue(self, value):
        self._quiet = True
        try:
            self._show(value)
        finally:
            self._quiet = False


class _NumberEditor(_Editor):
    """A spin box; for an optional number its lowest position stands for "automatic"."""

    def __init__(self, kind, optional, field, info, onChanged):
        spin = qt.QSpinBox() if kind is int else qt.QDoubleSpinBox()
        self._kind = kind
        low = -1e6 if info.minimum is None else info.minimum
        high = 1e6 if info.maximum is None else info.maximum
        step = 1 if kind is int else _step(low, high)
        if kind is float:
            spin.decimals = _decimals(step, low, field.default)
        self._automatic = kind(low - step) if optional else None
        spin.minimum = kind(low - step if optional else low)
        spin.maximum = kind(high)
        spin.singleStep = step
        if optional:
            spin.specialValueText = _("automatic")
        if info.unit:
            spin.suffix = f" {info.unit}"
        _Editor.__init__(self, spin, "valueChanged(int)" if kind is int else "valueChanged(double)", onChanged)

    def value(self):
        if self._automatic is not None and self.widget.value <= self.widget.minimum:
            return None
        return self._kind(_rounded(self.widget))

    def _show(self, value):
        self.widget.value = self._automatic if value is None else self._kind(value)


class _SliderEditor(_Editor):
    """A slider with its number."""

    def __init__(self, field, info, onChanged):
        slider = ctk.ctkSliderWidget()
        step = _step(info.minimum, info.maximum)
        slider.decimals = _decimals(step, info.minimum, field.default)
        slider.minimum, slider.maximum, slider.singleStep = float(info.minimum), float(info.maximum), step
        if info.unit:
            slider.suffix = f" {info.unit}"
        _Editor.__init__(self, slider, "valueChanged(double)", onChanged)

    def value(self):
        return float(_rounded(self.widget))

    def _show(self, value):
        self.widget.value = float(value)


class _CheckEditor(_Editor):
    """Check box of a yes or no."""

    def __init__(self, onChanged):
        _Editor.__init__(self, qt.QCheckBox(), "toggled(bool)", onChanged)

    def value(self):
        return bool(self.widget.checked)

    def _show(self, value):
        self.widget.checked = value


class _ChoiceEditor(_Editor):
    """One of a few words."""

    def __init__(self, info, onChanged):
        combo = qt.QComboBox()
        self._choices = info.choices
        for choice in info.choices:
            combo.addItem(_(info.labels.get(choice) or choice.replace("-", " ")))
        _Editor.__init__(self, combo, "currentIndexChanged(int)", onChanged)

    def value(self):
        return self._choices[self.widget.currentIndex]

    def _show(self, value):
        self.widget.currentIndex = self._choices.index(value) if value in self._choices else 0


class _TextEditor(_Editor):
    """Free text."""

    def __init__(self, onChanged):
        _Editor.__init__(self, qt.QLineEdit(), "textChanged(QString)", onChanged)

    def value(self):
        return self.widget.text

    def _show(self, value):
        self.widget.text = value


class _ModelEditor(_Editor):
    """A model of the catalogue that fits the prior; first of all the latest one, whichever that is."""

    def __init__(self, kind, onChanged):
        combo = qt.QComboBox()
        combo.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Fixed)  # a path must not widen the panel
        self._kind = kind
        combo.addItem(_("latest"), "")
        _Editor.__init__(self, combo, "currentIndexChanged(int)", onChanged)

    def offer(self, prior):
        """List the models for ``prior``; a chosen one that is not among them stays, so that the user sees its name."""
        value = self.value()
        self._quiet = True
        try:
            fitting = fittingModels(self._kind, prior)
            self.widget.clear()
            self.widget.addItem(_("latest: {name}").format(name=fitting[0].name) if fitting else _("latest"), "")
            for entry in fitting:
                self.widget.addItem(entry.name, entry.name)  # titles are too long for the panel
            self._show(value)
        finally:
            self._quiet = False

    def value(self):
        return self.widget.currentData or None

    def _show(self, value):
        if value and self.widget.findData(value) < 0:
            self.widget.addItem(str(value), value)
        self.widget.currentIndex = self.widget.findData(value or "")


class _WordsEditor:
    """Words with commas between: a button for each usual one, a line for others."""

    def __init__(self, info, onChanged):
        self._onChanged = onChanged
        self._quiet = False
        self._text = ""
        self.widget = qt.QWidget()
        rows = qt.QVBoxLayout(self.widget)
        rows.setContentsMargins(0, 0, 0, 0)
        buttons = qt.QHBoxLayout()
        buttons.setSpacing(2)
        rows.addLayout(buttons)
        self.buttons = {}
        for word in info.words:
            button = qt.QToolButton()
            button.text = word.upper()
            button.checkable = True
            button.toolTip = _(info.labels.get(word, word))
            button.connect("toggled(bool)", lambda *_checked: self._changed())
            buttons.addWidget(button)
            self.buttons[word] = button
        buttons.addStretch(1)
        self.line = qt.QLineEdit()
        self.line.placeholderText = _(info.others)
        self.line.connect("textChanged(QString)", lambda *_text: self._changed())
        rows.addWidget(self.line)

    def setToolTip(self, text):
        self.widget.toolTip = self.line.toolTip = text

    def _changed(self):
        if not self._quiet:
            others = [word.strip() for word in self.line.text.split(",")]
            pressed = [word for word, button in self.buttons.items() if button.checked]
            self._text = ",".join([*pressed, *filter(None, others)])
            self._onChanged()

    def value(self):
        return self._text

    def setValue(self, value):
        """Show ``value``, in its own order until the user changes it; does not call ``onChanged``."""
        self._text = value
        words = [word.strip() for word in value.split(",")]
        self._quiet = True
        try:
            for word, button in self.buttons.items():
                button.checked = word in words
            self.line.text = ", ".join(word for word in words if word and word not in self.buttons)
        finally:
            self._quiet = False


class _ChecksEditor:
    """Words with commas between, of which there are few: a check box for each, in their order."""

    def __init__(self, info, onChanged):
        self._onChanged = onChanged
        self._quiet = False
        self.widget = qt.QWidget()
        row = qt.QHBoxLayout(self.widget)
        row.setContentsMargins(0, 0, 0, 0)
        self.boxes = {}
        for word in info.words:
            box = qt.QCheckBox(_(info.labels.get(word, word)))
            box.connect("toggled(bool)", lambda *_checked: self._changed())
            row.addWidget(box)
            self.boxes[word] = box
        row.addStretch(1)

    def setToolTip(self, text):
        self.widget.toolTip = text
        for box in self.boxes.values():
            box.toolTip = text

    def _changed(self):
        if not self._quiet:
            self._onChanged()

    def value(self):
        return ",".join(word for word, box in self.boxes.items() if box.checked)

    def setValue(self, value):
        """Show ``value``; does not call ``onChanged``."""
        words = [word.strip().lower() for word in value.split(",")]
        self._quiet = True
        try:
            for word, box in self.boxes.items():
                box.checked = word in words
        finally:
            self._quiet = False


class _TupleEditor(_Editor):
    """Several numbers in rows of three; all are automatic as long as one of them is."""

    def __init__(self, kinds, optional, field, info, onChanged):
        self.widget = qt.QWidget()
        rows = qt.QGridLayout(self.widget)
        rows.setContentsMargins(0, 0, 0, 0)
        self._numbers = [_NumberEditor(kind, optional, field, info, onChanged) for kind in kinds]
        for index, number in enumerate(self._numbers):
            number.widget.suffix = ""  # three units do not fit into the panel; the tooltip says it
            rows.addWidget(number.widget, index // 3, index % 3)

    def setToolTip(self, text):
        self.widget.toolTip = text
        for number in self._numbers:
            number.setToolTip(text)

    def value(self):
        values = [number.value() for number in self._numbers]
        return None if None in values else values

    def setValue(self, value):
        for index, number in enumerate(self._numbers):
            number.setValue(None if value is None else value[index])


def _step(low, high):
    """A click of the arrows: about a hundredth of the range, a round number, at most 1."""
    span = high - low
    return next((step for step in (0.01, 0.05, 0.1, 0.5) if span / step <= 100), 1.0)


def _decimals(*numbers):
    """Digits behind the point that show all the numbers in full, at most 3."""
    known = [round(number, 3) for number in numbers if isinstance(number, (int, float))]
    return max(len(f"{number:.3f}".rstrip("0").split(".")[1]) for number in known)


def _rounded(widget):
    """The number as shown, without the rounding of binary fractions."""
    decimals = widget.decimals if hasattr(widget, "decimals") else 0
    return round(widget.value, decimals)
