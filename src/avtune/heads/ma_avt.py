"""MA-AVT's two classifiers: which event, and whether sound and frames belong together at all (Equation 9)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.config import HeadConfig
from avtune.encoder import Encoded
from avtune.errors import AvtuneError
from avtune.fusion.base import Notes
from avtune.options import choose


@dataclass(frozen=True)
class MaAvtHeadSettings:
    """Settings of MA-AVT's head.

    Attributes:
        background_loss: Segments that teach the background classifier: ``all``, as the authors' code, or those of
            the ``background`` alone, as Equation 9 is printed, which never teaches it to say no.
        mean_over: Whether the two losses are means over ``all`` segments, as Equation 9 over a batch, or each
            over the segments it is ``own`` to, as the authors' code.
        two_layers: Whether the classes have a first linear layer of ``head.hidden`` channels before theirs (the
            paper speaks of "MLP layers", and its count for ViT-B with AST needs 768); their code has one layer.
        decision: ``gate``: background where its probability exceeds one half, otherwise the best class, as the
            authors' scores; ``joint``: the most probable of all classes and background.
    """

    background_loss: Literal["all", "background"] = "all"
    mean_over: Literal["all", "own"] = "all"
    two_layers: bool = False
    decision: Literal["gate", "joint"] = "gate"


PAPER = MaAvtHeadSettings()
PRESETS = {
    "paper": PAPER,
    "paper_as_printed": replace(PAPER, background_loss="background"),
    "official": replace(PAPER, mean_over="own"),
    "two_layers": replace(PAPER, two_layers=True),
    "joint": replace(PAPER, decision="joint"),
}


class Halves(nn.Module):
    """W [v ; a] + b, whose halves answer for one stream alone too (Table 5).

    Args:
        audio_dim: Channels of the sound's token.
        video_dim: Channels of the frames' token.
        outputs: Channels of the answer.
        hidden: Channels of a first linear layer (no activation follows it); ``None``: there is none.
    """

    def __init__(self, audio_dim: int, video_dim: int, outputs: int, hidden: int | None) -> None:
        super().__init__()
        self.hidden = None if hidden is None else nn.Linear(video_dim + audio_dim, hidden)
        self.classes = nn.Linear(video_dim + audio_dim if hidden is None else hidden, outputs)

    def forward(
        self, audio: Tensor, video: Tensor, has_audio: Tensor | None = None, has_video: Tensor | None = None
    ) -> Tensor:
        """Each stream's half of W with half of b; both halves add up to the whole.

        Args:
            audio: Tokens (..., audio dim).
            video: Tokens (..., video dim).
            has_audio: Which clips the sound's half answers for, bool, broadcast with (..., 1); ``None``: all.
            has_video: Those of the frames' half.

        Returns:
            Logits (..., outputs).
        """
        heard, seen = (1.0 if has is None else has.to(video) for has in (has_audio, has_video))
        answer, bias = torch.cat([video * seen, audio * heard], dim=-1), (seen + heard) / 2
        for layer in (self.hidden, self.classes):
            if layer is not None:
                answer = F.linear(answer, layer.weight) + bias * layer.bias
        return answer


class MaAvtHead(nn.Module):
    """p_f = W_f [v_f ; a_f] over the events, p_b = W_b [v_b ; a_b] for background, after the towers' final norms.

    As probabilities: P(background) = sigma(p_b), P(class) = (1 - sigma(p_b)) softmax(p_f), so that their
    cross-entropy is the classes' cross-entropy on foreground plus the background's binary one on all segments.

    Args:
        audio_dim: Channels of the sound.
        video_dim: Channels of the frames.
        classes: Labels plus one; the last class is background.
        hidden: Width of the first layer, where there is one.
        settings: See :class:`MaAvtHeadSettings`.
    """

    def __init__(
        self, audio_dim: int, video_dim: int, classes: int, hidden: int, settings: MaAvtHeadSettings
    ) -> None:
        super().__init__()
        width = hidden if settings.two_layers else None
        self.foreground = Halves(audio_dim, video_dim, classes - 1, width)
        self.background = Halves(audio_dim, video_dim, 1, None)
        self.decision = settings.decision

    def forward(self, encoded: Encoded) -> Tensor:
        """Log-probabilities (batch, T, classes); their parts ``foreground_logits``, ``background_logits`` in the notes.

        Where a clip lacks a stream, the other's halves answer alone (Table 5).

        Out of training and with ``decision`` gate, background stands just below the best class where its own
        probability is below one half, so that the largest answer is the authors' rule.

        Raises:
            AvtuneError: The method has no foreground and background tokens.
        """
        notes = encoded.notes
        if "audio_background" not in notes.records:
            raise AvtuneError(
                "the head ma_avt reads the background tokens of the method ma_avt; use --encoder.fusion ma_avt "
                "with background tokens, or --head.name segment"
            )
        present = (_by_clip(encoded.has_audio), _by_clip(encoded.has_video))
        classes = self.foreground(*_tokens(encoded, "foreground"), *present)
        background = self.background(*_tokens(encoded, "background"), *present)
        notes.record("foreground_logits", classes)
        notes.record("background_logits", background[..., 0])
        classes, background = classes.float(), background.float()
        joint = torch.cat([classes.log_softmax(-1) + F.logsigmoid(-background), F.logsigmoid(background)], -1)
        if self.training or self.decision == "joint":
            return joint
        events, gate = joint[..., :-1], joint[..., -1:]
        best, margin = events.amax(-1, keepdim=True), 1e-4
        gate = torch.where(background > 0, gate.maximum(best + margin), gate.minimum(best - margin))
        return torch.cat([events, gate], -1)


def _token(encoded: Encoded, name: str) -> Tensor:
    noted = encoded.notes.records[name][-1]
    return noted.view(-1, encoded.notes.segments, noted.shape[-1])


def _by_clip(has: Tensor | None) -> Tensor | None:
    return None if has is None else has.view(-1, 1, 1)


def _tokens(encoded: Encoded, kind: str) -> tuple[Tensor, Tensor]:
    return _token(encoded, f"audio_{kind}"), _token(encoded, f"video_{kind}")


def build_ma_avt_head(audio_dim: int, video_dim: int, classes: int, config: HeadConfig) -> MaAvtHead:
    """The head as a recipe states it."""
    return MaAvtHead(audio_dim, video_dim, classes, config.hidden, ma_avt_settings(config))


def ma_avt_settings(config: HeadConfig) -> MaAvtHeadSettings:
    """The settings of the preset that a recipe names."""
    return choose("preset of ma_avt", config.preset or "paper", PRESETS)


def ma_avt_loss(logits: Tensor, notes: Notes, target: Tensor, valid: Tensor, config: HeadConfig) -> Tensor:
    """Equation 9: L_bf = y_b BCE(p_b, y_b) + (1 - y_b) CE(p_f, y_f), by default with BCE on all segments.

    Args:
        logits: Log-probabilities (batch, T, classes); read for their shape alone.
        notes: Hold the parts that the head left.
        target: Class indices (batch, T), background last.
        valid: (batch, T) bool.
        config: Names the settings.

    Returns:
        Sum over the valid segments; zero, with a gradient of zero, for a loss to which no segment belongs.
    """
    settings = ma_avt_settings(config)
    classes = notes.records["foreground_logits"][-1].float()[valid]
    background = notes.records["background_logits"][-1].float()[valid]
    truth = target[valid]
    is_background = truth == logits.shape[-1] - 1
    event = F.cross_entropy(classes[~is_background], truth[~is_background], reduction="sum")
    asked = is_background if settings.background_loss == "background" else torch.ones_like(is_background)
    relevance = F.binary_cross_entropy_with_logits(
        background[asked], is_background[asked].float(), reduction="sum"
    )
    if settings.mean_over == "all":
        return event + relevance
    share = len(truth) / (~is_background).sum().clamp(min=1), len(truth) / asked.sum().clamp(min=1)
    return event * share[0] + relevance * share[1]
