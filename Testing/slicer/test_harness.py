"""The stand-in for PythonQt takes and refuses what Slicer's takes and refuses."""

from __future__ import annotations

from typing import Any

import pytest


def test_properties_are_attributes_and_unknown_names_fail(app: Any) -> None:
    import qt

    button = qt.QPushButton("text")
    assert button.text == "text"
    with pytest.raises(TypeError, match="not callable"):
        button.text()
    with pytest.raises(AttributeError):
        button.noSuchMember  # noqa: B018
    with pytest.raises(AttributeError):
        button.noSuchMember = 3
    assert not button.connect("noSuchSignal()", lambda: None)
    from Testing.harness import pythonqt

    pythonqt.refused_connections.clear()


def test_signals_are_objects_that_connect(app: Any) -> None:
    import qt

    spin, heard = qt.QSpinBox(), []
    assert spin.valueChanged.connect(heard.append)
    spin.value = 4
    spin.valueChanged.disconnect(heard.append)
    spin.value = 5
    assert heard == [4]
    button = qt.QPushButton()
    button.clicked.connect(lambda: heard.append("clicked"))  # takes fewer arguments than the signal gives
    button.clicked.emit(False)
    assert heard == [4, "clicked"]


def test_a_tuple_is_a_list_of_strings(app: Any) -> None:
    combo = app.slicer.qMRMLNodeComboBox()
    combo.nodeTypes = ("vtkMRMLScalarVolumeNode", "vtkMRMLSegmentationNode")
    assert combo.nodeTypes == ("vtkMRMLScalarVolumeNode", "vtkMRMLSegmentationNode")


def test_each_class_has_a_type_of_its_own(app: Any) -> None:
    import qt

    spin = qt.QSpinBox()
    assert type(spin) == qt.QSpinBox and type(spin) != qt.QPushButton  # noqa: E721  # as Slicer's connectors ask
    assert type(spin) in {qt.QSpinBox}
    assert isinstance(spin, qt.QWidget) and not isinstance(spin, qt.QPushButton)


def test_what_is_a_property_of_no_widget_is_an_attribute_too(app: Any) -> None:
    """As in Slicer, where a click on a finding failed on ``selectionModel().currentIndex()``."""
    import qt

    table = qt.QTableWidget(2, 1)
    table.selectRow(1)
    assert table.currentIndex().row() == table.selectionModel().currentIndex.row() == 1
    with pytest.raises(TypeError, match="not callable"):
        table.selectionModel().currentIndex()
