"""Texts read by a plug-in: found by name, held to its word, and asked for by the weights that need it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from MedDiffFMLib.core.errors import DependencyError, InputError, ModelError
from MedDiffFMLib.models.checkpoint import read_weights, write_weights
from MedDiffFMLib.multimodal.aligned import AlignedEncoders, load_encoders, save_encoders
from MedDiffFMLib.multimodal.facts.fact import Statement
from MedDiffFMLib.multimodal.facts.grammar import statement, write
from MedDiffFMLib.multimodal.sentence_encoder import SentenceEncoder
from MedDiffFMLib.multimodal.spoken_facts import MOST
from MedDiffFMLib.multimodal.text_codecs import GROUP, HashedNgrams, Reader, TextCodec, codec_names, find_codec

PART = Statement("lungs", {"volume": 300})
"""As of parts of scans, which are not said to be whole."""
FACTS = [statement("bone_density", hu=300), statement("fat", share=30, volume=2.0), PART]
PLUGIN = """
import numpy as np

class Letters:
    name, version, size = "letters", "1.0", 26

    def vectors(self, sentences):
        return np.array([[s.lower().count(chr(97 + n)) for n in range(26)] for s in sentences])

def broken():
    raise OSError("no model in this folder")

class Liar(Letters):
    name = "liar"

    def vectors(self, sentences):
        return np.zeros((len(sentences), 3))
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that is installed: its code, and the record of what it offers."""
    record = tmp_path / "labplugin-1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: labplugin\nVersion: 1.0\n")
    offered = {"letters": "Letters", "broken": "broken", "liar": "Liar", "renamed": "Letters"}
    lines = "\n".join(f"{name} = labplugin:{what}" for name, what in offered.items())
    (record / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}\n")
    (tmp_path / "labplugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    return record


def encoder(codec: TextCodec) -> SentenceEncoder:
    torch.manual_seed(0)
    made = SentenceEncoder(codec)
    made.measure([FACTS])
    return made.eval().requires_grad_(False)


def test_texts_are_alike_as_far_as_they_share_spelling() -> None:
    codec = HashedNgrams()
    one, same, near, far, none = codec.vectors(
        ["Nodule of 12 mm in the right lung.", "nodule of 12 MM in the right lung", "Nodule in the right lung.",
         "Fat makes 30 % of the shown body.", " .. "]
    )  # fmt: skip
    assert np.array_equal(one, same) and np.linalg.norm(one) == pytest.approx(1) and not none.any()
    assert one @ near > 0.6 > 0.3 > abs(float(one @ far))
    assert np.array_equal(HashedNgrams().vectors(["3.5 l", "3 5 l"]), codec.vectors(["3.5 l", "3 5 l"]))
    assert not np.array_equal(*codec.vectors(["3.5 l", "3 5 l"]))


def test_a_plugin_is_found_by_the_name_under_which_it_is_offered(plugins: Path) -> None:
    assert {"hashed-ngrams", "letters"} <= set(codec_names())
    assert find_codec("letters").vectors(["abba"])[0, :2].tolist() == [2, 2]
    with pytest.raises(ModelError, match="'broken' cannot be loaded .OSError: no model in this folder"):
        find_codec("broken")
    with pytest.raises(ModelError, match="'renamed' says that its name"):
        find_codec("renamed")
    with pytest.raises(ModelError, match=r"'liar' gave \(1, 3\) for 1 sentences.*have 26"):
        Reader(find_codec("liar")).rows(["a"])
    with pytest.raises(DependencyError, match="no text codec 'cxr-bert' here, but .*hashed-ngrams, .*letters"):
        find_codec("cxr-bert")


def test_each_sentence_is_read_once() -> None:
    class Counting(HashedNgrams):
        read: list[str] = []

        def vectors(self, sentences):  # type: ignore[no-untyped-def]
            self.read.extend(sentences)
            assert len(sentences) <= 256
            return super().vectors(sentences)

    reader = Reader(Counting())
    sentences = [f"slice {n % 300}" for n in range(700)]
    rows = reader.rows(sentences)
    assert len(Counting.read) == 300 and np.array_equal(reader.rows(sentences), rows)
    assert np.array_equal(reader.table[rows[:2]], HashedNgrams().vectors(sentences[:2]))


def test_order_of_sentences_does_not_matter_and_absent_ones_have_no_part() -> None:
    made = encoder(HashedNgrams())
    whole, turned, less = (made(made.told([facts])) for facts in (FACTS, FACTS[::-1], FACTS[:1]))
    assert torch.allclose(whole, turned, atol=1e-6) and not torch.allclose(whole, less, atol=1e-2)
    padded = made.told([FACTS[:1], FACTS])
    assert torch.allclose(made(padded)[0], less[0], atol=1e-6)


def test_a_prompt_is_read_as_it_stands() -> None:
    """Sentence by sentence, also where the grammar of facts knows no word of it; its decimals end no sentence."""
    made = encoder(HashedNgrams())
    asked, how = made.asked("Ground-glass opacity. Effusion of 1.5 l;\nscar")
    assert asked.said.sum() == 3 and "as it stands by the text codec hashed-ngrams 1" in how
    said, _ = made.asked(write(FACTS[1]))
    assert torch.allclose(said.vectors, made.told([FACTS[1:2]]).vectors, atol=1e-6)
    assert "first 24 sentences" in made.asked("a. " * (MOST + 1))[1]
    with pytest.raises(InputError, match="The prompt says nothing"):
        made.asked(" . ; ")


def test_weights_ask_for_their_codec(plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoders = AlignedEncoders(find_codec("letters")).eval()
    path = tmp_path / "encoders.safetensors"
    save_encoders(path, encoders, {})
    with torch.no_grad():
        found, expected = (one.text([FACTS]) for one in (load_encoders(path), encoders))
    assert torch.allclose(found, expected, atol=2e-3)
    weights = read_weights(path)
    other = {**weights.metadata, "text_codec": json.dumps({"name": "letters", "version": "2.0", "size": 26})}
    write_weights(tmp_path / "newer.safetensors", weights.state, other)
    with pytest.raises(ModelError, match="ask for the text codec letters 2.0 .* installed is version 1.0"):
        load_encoders(tmp_path / "newer.safetensors")
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    (plugins / "entry_points.txt").unlink()
    with pytest.raises(DependencyError, match="encoders.safetensors read texts by the text codec 'letters', which is"):
        load_encoders(path)
