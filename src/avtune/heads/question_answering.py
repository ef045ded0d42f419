"""The head that answers questions: MUSIC-AVQA's own, on the tokens of adapted towers (Li et al., CVPR 2022)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from avtune.config import HeadConfig
from avtune.encoder import Encoded
from avtune.errors import AvtuneError
from avtune.heads.grounding import GROUNDING, MATCH, Grounded, Grounding, GroundingHead
from avtune.heads.question_encoder import FrozenQuestion, RecurrentQuestion
from avtune.heads.segments import existing
from avtune.options import chosen

ATTENTION_HEADS = 4


@dataclass(frozen=True)
class QuestionAnsweringSettings:
    """Settings of question answering.

    Attributes:
        stage: ``answering``: everything; ``grounding``: only which sound and frame belong together, the authors' first
            stage.
        grounding_from: Folder of a run of the stage ``grounding`` whose grounding this run begins with; ``None``: with
            random weights.
        negatives: Which frames of other files a sound is matched with: ``plain``, as the frozen tower alone sees them,
            which costs a third stream in training; ``adapted``, as the method has encoded them already; ``none``:
            nothing is matched.
        match_weight: Weight of the matching loss.
        text: What reads the question: an LSTM that is trained, or a frozen language model.
        text_model: Name of that language model on the Hugging Face Hub, or its folder.
        project: Whether both streams are mapped to ``head.hidden`` first; otherwise the towers must have that width.
        normalise: Whether both streams are brought to mean zero and variance one over their channels first, for towers
            whose last norm leaves small values.
        start: How the linear layers begin: ``pytorch``, as in the authors' code, which makes values smaller from layer
            to layer, so that the product of question and clip hardly counts at first; ``scaled``: so that ``tanh``
            keeps their size (Xavier, biases zero).
    """

    stage: Literal["answering", "grounding"] = "answering"
    grounding_from: str | None = None
    negatives: Literal["plain", "adapted", "none"] = "plain"
    match_weight: float = 0.5
    text: Literal["lstm", "frozen"] = "lstm"
    text_model: str | None = None
    project: bool = True
    normalise: bool = False
    start: Literal["pytorch", "scaled"] = "pytorch"


PRESETS = {
    "paper": QuestionAnsweringSettings(),
    "few_questions": QuestionAnsweringSettings(negatives="adapted", normalise=True, start="scaled"),
    "tower_width": QuestionAnsweringSettings(project=False),
}
"""``few_questions`` learns from thousands of them, ``tower_width`` is the wider head of STG-CMA's larger row."""


class QuestionAttention(nn.Module):
    """What the question finds over time in one stream: attention, then a layer of its own, residual and normalised.

    Args:
        width: Channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, ATTENTION_HEADS, dropout=0.1, batch_first=True)
        self.feed = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, width), nn.Dropout(0.1)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, question: Tensor, x: Tensor, valid: Tensor) -> Tensor:
        """Ask one stream.

        Args:
            question: (batch, width).
            x: (batch, T, width).
            valid: (batch, T) bool with at least one true in each row; the others are not asked.

        Returns:
            What was found, and the stream's mean over time, (batch, width).
        """
        found, _ = self.attention(question.unsqueeze(1), x, x, key_padding_mask=~valid, need_weights=False)
        found = found.squeeze(1)
        there = valid.unsqueeze(-1).to(x.dtype)
        mean = (x * there).sum(dim=1) / there.sum(dim=1)
        asked: Tensor = self.norm(found + self.feed(found)) + mean
        return asked


class QuestionAnsweringHead(nn.Module):
    """Ground the sound, let the question ask both streams, and answer.

    ``W_ans tanh(W [tanh(a), tanh(v)] * q)``, where a and v are what the question q found.

    Args:
        grounding: Makes one vector of each segment's sound and one of its frame.
        question: Makes one vector of the question.
        answers: Number of answers.
        width: Channels of all of them.

    Attributes:
        unused_parameters: Weights of the LAVISH authors' module that take no part, which its published count includes.
    """

    def __init__(self, grounding: Grounding, question: nn.Module, answers: int, width: int) -> None:
        super().__init__()
        self.grounding = grounding
        self.question = question
        self.audio = QuestionAttention(width)
        self.video = QuestionAttention(width)
        self.join = nn.Linear(2 * width, width)
        self.answers = nn.Linear(width, answers)
        # Layers for other features and an older fusion: 128 and 2048 channels in, twice as many, three and one more
        # as wide as the head, and a norm.
        square = (width + 1) * width
        entries = 2 * (128 + 1) * width + (2048 + 1) * width
        self.unused_parameters = entries + 4 * square + (2 * width + 1) * width + 2 * width

    def forward(self, encoded: Encoded) -> Tensor:
        """Logits (batch, answers); where it looked, and what matches, go into the notes."""
        assert encoded.question is not None
        valid = existing(encoded)
        found: Grounded = self.grounding(encoded)
        encoded.notes.record(GROUNDING, found.weights)
        if found.match is not None:
            encoded.notes.record(MATCH, found.match)
        question = self.question(encoded.question)
        heard, seen = self.audio(question, found.sound, valid), self.video(question, found.picture, valid)
        both = self.join(torch.tanh(torch.cat([heard, seen], dim=-1)))
        logits: Tensor = self.answers(torch.tanh(both * question))
        return logits


def build_question_answering(
    audio_dim: int, video_dim: int, answers: int, words: int, config: HeadConfig
) -> nn.Module:
    """The head as a recipe states it.

    Args:
        audio_dim: Channels of the sound.
        video_dim: Channels of the frames.
        answers: Number of answers.
        words: Number of words, ``<pad>`` among them.
        config: Names preset and options.

    Raises:
        AvtuneError: The width does not fit the attention, or the towers where nothing maps to it.
    """
    settings, width = question_answering_settings(config), config.hidden
    if width % ATTENTION_HEADS:
        raise AvtuneError(f"head.hidden is {width}; set it to a multiple of {ATTENTION_HEADS}")
    if not settings.project and not audio_dim == video_dim == width:
        raise AvtuneError(
            f"head.options.project is false, but the towers have {audio_dim} and {video_dim} channels and head.hidden "
            f"is {width}; make these equal, or leave head.options.project at true"
        )
    matches = settings.negatives != "none"
    grounding = Grounding(
        audio_dim, video_dim, width, project=settings.project, normalise=settings.normalise, matches=matches
    )
    if settings.stage == "grounding":
        head: nn.Module = GroundingHead(grounding)
    else:
        head = QuestionAnsweringHead(grounding, _question_encoder(words, width, settings), answers, width)
    if settings.start == "scaled":
        _scale(head)
    return head


def _question_encoder(words: int, width: int, settings: QuestionAnsweringSettings) -> nn.Module:
    if settings.text == "lstm":
        return RecurrentQuestion(words, width)
    assert settings.text_model is not None
    return FrozenQuestion(settings.text_model, width)


def _scale(head: nn.Module) -> None:
    """Begin trained linear layers so that values keep their size through them and ``tanh``."""
    for layer in head.modules():
        if isinstance(layer, nn.Linear) and layer.weight.requires_grad:
            nn.init.xavier_normal_(layer.weight, gain=nn.init.calculate_gain("tanh"))
            nn.init.zeros_(layer.bias)


def question_answering_settings(config: HeadConfig) -> QuestionAnsweringSettings:
    """The preset and options that a recipe states.

    Raises:
        AvtuneError: One does not exist, a value does not fit, or two do not go together.
    """
    settings = chosen("question_answering", PRESETS, config.preset, config.options)
    if settings.text == "frozen" and settings.text_model is None:
        raise AvtuneError(
            "head.options.text is frozen; name the language model in head.options.text_model, such as "
            "google-bert/bert-base-uncased"
        )
    if settings.text == "lstm" and settings.text_model is not None:
        raise AvtuneError(
            f"head.options.text_model is {settings.text_model}, but an LSTM reads the questions; set head.options.text "
            "to frozen, or leave the model out"
        )
    if settings.match_weight < 0:
        raise AvtuneError(f"head.options.match_weight is {settings.match_weight}; set it to 0 or more")
    if settings.stage == "grounding" and (settings.negatives == "none" or settings.grounding_from):
        raise AvtuneError(
            "head.options.stage is grounding, which learns from frames of other files and begins anew; leave "
            "head.options.negatives none and head.options.grounding_from out"
        )
    if config.streams == "alone":
        if settings.stage == "grounding":
            raise AvtuneError(
                "one stream alone has nothing to ground; leave train.floors out of a grounding run"
            )
        settings = replace(settings, negatives="none")
    return settings
