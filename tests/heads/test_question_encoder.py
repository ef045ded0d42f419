"""Questions read by a frozen language model: a tiny made-up one in the form of the Hugging Face Hub."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest
import torch

from avtune.config import EncoderConfig, HeadConfig, InputConfig, RunConfig
from avtune.errors import AvtuneError
from avtune.heads.question_encoder import LONGEST_TEXT, FrozenText, TextTokens
from avtune.model import AudioVisualModel, load

VOCABULARY = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "is",
    "there",
    "a",
    "drum",
    "sound",
    "acoustic",
    "guitar",
    "?",
)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("language") / "tiny"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    library.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(3)
    config = library.BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=64,
    )  # fmt: skip
    library.BertModel(config).save_pretrained(folder)
    return folder


def test_a_question_is_the_mean_over_its_tokens_and_padding_changes_nothing(language_model: Path) -> None:
    tokens = TextTokens(str(language_model))("Is there a acoustic_guitar sound?")
    names = [VOCABULARY[k] for k in tokens.tolist() if k >= 0]
    assert names == ["[CLS]", "is", "there", "a", "acoustic", "guitar", "sound", "?", "[SEP]"]
    assert tokens.shape == (LONGEST_TEXT,)
    text = FrozenText(str(language_model))
    found = text(tokens.unsqueeze(0))
    alone = text.model(input_ids=tokens[None, : len(names)]).last_hidden_state.mean(dim=1)
    assert found.shape == (1, text.dim) == (1, 8)
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-4)


def test_it_stays_frozen_and_a_run_saves_only_what_it_trained(language_model: Path, tmp_path: Path) -> None:
    options = {"text": "frozen", "text_model": str(language_model)}
    config = RunConfig(
        input=InputConfig(segments=2),
        encoder=EncoderConfig(fusion="frozen", pretrained=False),
        head=HeadConfig(task="question_answering", hidden=8, options=options),
    )
    model = AudioVisualModel(config, ("yes", "no"), words=("<pad>", "Is"), depth=None)
    model.train()
    text = model.network.head.question.text
    assert not text.model.training
    assert not any(weight.requires_grad for weight in text.parameters())
    saved = model.network.trained_state()
    assert not [name for name in saved if ".text." in name]
    assert "head.question.map.weight" in saved
    # Words that no training question has are read as well.
    asked = model.task.encode_question("Is there a drum")
    assert asked is not None
    assert (asked >= 0).sum() == 6
    model.save(tmp_path / "run")
    again = load(tmp_path / "run")
    for name, weight in model.network.head.state_dict().items():
        assert torch.equal(weight, again.network.head.state_dict()[name]), name


def test_on_the_meta_device_only_the_shape_is_read(language_model: Path) -> None:
    with torch.device("meta"):
        text = FrozenText(str(language_model))
    assert {weight.device.type for weight in text.parameters()} == {"meta"}


def test_a_model_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    for make in (FrozenText, TextTokens):
        with pytest.raises(AvtuneError, match=r"head\.options\.text_model .* cannot be read") as caught:
            make(str(tmp_path / "absent"))
        assert "\n" not in str(caught.value)


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name == "transformers":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(AvtuneError, match=r"pip install 'avtune\[text\]'"):
        TextTokens("anything")
