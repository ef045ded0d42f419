"""Question answering: a question about a clip, one of the dataset's answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.backbones import Tower
from avtune.config import HeadConfig, InputConfig
from avtune.datasets import DatasetError, Record
from avtune.datasets.question_text import LONGEST, PAD, Vocabulary
from avtune.encoder import Encoded
from avtune.errors import AvtuneError
from avtune.heads.grounding import GROUNDING, MATCH
from avtune.heads.question_answering import build_question_answering, question_answering_settings
from avtune.heads.question_encoder import LONGEST_TEXT, TextTokens
from avtune.heads.segments import full_precision
from avtune.tasks.asked import example_question, spoken_words, typed_words
from avtune.tasks.base import Answer, Loss, Rows, Scores, Task, Truth
from avtune.tasks.blind_questions import question_rules
from avtune.tasks.grounding_weights import load_grounding
from avtune.tasks.predictions import Floats, Prediction, Window, by_probability, clip_mean, window_notes
from avtune.tasks.strangers import strangers
from avtune.transforms import Batch

KIND_BYTES = 64


@dataclass(frozen=True)
class AnswerPrediction(Prediction):
    """The answer to a question about a clip.

    Attributes:
        question: What was asked; empty where the run learned grounding alone.
        probabilities: (answers,), summing to one; none where the run learned grounding alone.
        grounding: Where each segment's sound was looked for (segments, rows, columns); a segment's weights sum to one.
        frames: What the model saw of each segment, RGB uint8 (segments, height, width, 3).
    """

    question: str
    probabilities: Floats
    grounding: Floats
    frames: npt.NDArray[np.uint8]

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """Answers with their probabilities, the likeliest first."""
        return by_probability(self.labels, self.probabilities)


class QuestionAnsweringTask(Task):
    """One answer for each question, chosen among those of the training questions.

    A clip's target holds the number of the answer, -1 for one that no training question has, and the name of the
    question's kind as UTF-8, since a batch holds nothing but tensors.

    Args:
        labels: The answers.
        input: What the model sees of a clip.
        head: Width, preset and options, see :class:`avtune.heads.question_answering.QuestionAnsweringSettings`.
        words: Words that questions are made of, in the order of their numbers.

    Raises:
        AvtuneError: A setting does not exist or does not go with another, or the language model cannot be read.
    """

    def __init__(
        self, labels: tuple[str, ...], input: InputConfig, head: HeadConfig, words: tuple[str, ...] = ()
    ) -> None:
        super().__init__(labels, input, head, words or (PAD,))
        self.settings = question_answering_settings(head)
        self.grounds_only = self.scored_in_couples = self.settings.stage == "grounding"
        self.vocabulary = Vocabulary(self.words)
        self.tokens: TextTokens | None = None
        if self.settings.text == "frozen":
            assert self.settings.text_model is not None
            self.tokens = TextTokens(self.settings.text_model)
        self.question_length = LONGEST if self.tokens is None else LONGEST_TEXT

    def build_head(self, audio_tower: Tower, video_tower: Tower) -> nn.Module:
        """MUSIC-AVQA's head, or its grounding alone."""
        dims = (audio_tower.dim, video_tower.dim)
        return build_question_answering(*dims, len(self.labels), len(self.words), self.head)

    def strangers(self, training: bool) -> Literal["plain", "adapted"] | None:
        """As the option ``negatives`` says; outside training only where matching is what is scored."""
        wanted = training or self.grounds_only
        return self.settings.negatives if wanted and self.settings.negatives != "none" else None

    def begin(self, head: nn.Module) -> None:
        """Take the grounding of the run that ``head.options.grounding_from`` names."""
        if self.settings.grounding_from is not None:
            load_grounding(head, Path(self.settings.grounding_from))

    def target(self, record: Record) -> Tensor:
        """Number of the answer and name of the kind, (1 + KIND_BYTES,) int64.

        Raises:
            DatasetError: Nothing is asked about the clip, or the answer is not known and has to be.
        """
        if record.question is None:
            raise DatasetError(
                f"{record.name}: nothing is asked about it; choose a data.name with questions: questions, music_avqa"
            )
        question = record.question
        if not (question.answer or self.grounds_only):
            raise DatasetError(
                f"{record.origin or record.name}: the question has no answer; give it one, or remove it"
            )
        number = self.labels.index(question.answer) if question.answer in self.labels else -1
        kind = ": ".join(filter(None, question.kind)).encode()[:KIND_BYTES]
        return torch.tensor([number, *kind.ljust(KIND_BYTES, b"\0")])

    def question(self, record: Record) -> Tensor | None:
        """Word numbers (LONGEST,), or those of the frozen language model.

        Raises:
            DatasetError: It has too many words, or one that the run does not know.
        """
        if record.question is None:
            return None
        if self.tokens is not None:
            return self.tokens(record.question.text)
        return torch.tensor(self.vocabulary.encode(record.question.words, where=record.origin or record.name))

    def encode_question(self, question: str | None) -> Tensor | None:
        """A person's question: capitals and the question mark do not matter."""
        if self.grounds_only:
            return torch.zeros(self.question_length, dtype=torch.int64)
        if question is None or not typed_words(question):
            example = example_question(self.words)
            raise AvtuneError(f"this run answers questions; ask one, such as {example}")
        if self.tokens is not None:
            return self.tokens(question)
        return torch.tensor(self.vocabulary.encode(spoken_words(question, self.words)))

    def loss(self, outputs: Tensor, encoded: Encoded, batch: Batch) -> Loss:
        """Cross-entropy of the answer, and ``match_weight`` times that of what belongs together.

        The matching loss of a clip is the mean over its segments' two pairs. A clip that can be compared with no other
        file of its batch has none.

        Raises:
            AvtuneError: Grounding alone is to be learned from a batch of one clip.
        """
        counted = batch.valid.any(dim=1)
        if self.grounds_only:
            if len(batch) == 1:
                raise AvtuneError(
                    "one clip alone has no frames of other files beside it; set train.batch_size to 2 or more"
                )
            each, found = _match_loss(outputs, batch)
            return Loss(each.sum(), int(found.sum()))
        assert batch.target is not None
        with full_precision(outputs):
            total = F.cross_entropy(outputs[counted].float(), batch.target[counted, 0], reduction="sum")
        if MATCH in encoded.notes.records:
            each, _ = _match_loss(encoded.notes.records[MATCH][-1], batch)
            total = total + self.settings.match_weight * each.sum()
        return Loss(total, int(counted.sum()))

    def tally(self, outputs: Tensor, batch: Batch) -> Rows:
        """Each question's answer, truth and kind; or how many pairs of each clip were told right."""
        if self.grounds_only:
            _, found = strangers(batch)
            right = outputs.argmax(dim=-1) == torch.tensor([1, 0], device=outputs.device)
            told = (right & batch.valid[..., None])[found].sum(dim=1)
            columns = {
                "matched": told[:, 0], "told apart": told[:, 1], "segments": batch.valid[found].sum(dim=1)
            }  # fmt: skip
            return Rows({name: values.cpu().numpy() for name, values in columns.items()})
        assert batch.target is not None
        kinds = [
            bytes(row).rstrip(b"\0").decode(errors="ignore") for row in batch.target[:, 1:].cpu().tolist()
        ]
        return Rows({
            "answer": outputs.argmax(dim=-1).cpu().numpy(),
            "truth": batch.target[:, 0].cpu().numpy(),
            "kind": np.array(kinds, dtype=np.str_),
        })  # fmt: skip

    def score(self, tally: Rows) -> Scores:
        """Share of right answers over all questions, and for each kind; or of pairs that were told right.

        Raises:
            AvtuneError: No two clips were of different files, so that nothing could be matched.
        """
        columns = tally.columns
        if self.grounds_only:
            return _match_scores(columns)
        right, kinds = columns["answer"] == columns["truth"], columns["kind"]
        modalities = np.array([kind.partition(":")[0] for kind in kinds.tolist()], dtype=np.str_)
        rows = []
        for modality in sorted(set(modalities.tolist()) - {""}):
            rows.append(_accuracy_row(modality, right[modalities == modality]))
            inner = sorted(set(kinds[modalities == modality].tolist()) - {modality})
            rows += [_accuracy_row(kind, right[kinds == kind]) for kind in inner]
        details = {
            "questions": len(right),
            "answers unknown in training": int((columns["truth"] < 0).sum()),
            "per_class": rows,
        }
        return Scores("accuracy", float(right.mean()), details)

    def blind_answers(self, truths: Iterable[Truth]) -> Mapping[str, Answer]:
        """``majority`` and ``question only``, see :mod:`avtune.tasks.blind_questions`."""
        return {} if self.grounds_only else question_rules(truths, len(self.labels))

    def parts(self, outputs: Tensor, encoded: Encoded, batch: Batch) -> dict[str, Tensor]:
        """``probabilities`` (batch, answers), ``grounding`` (batch, T, cells), ``frames`` (batch, T, h, w, 3)."""
        told = outputs.new_zeros(len(outputs), 0) if self.grounds_only else outputs.float().softmax(dim=-1)
        grounding = encoded.notes.records[GROUNDING][-1].float()
        return {"probabilities": told, "grounding": grounding, "frames": batch.frames.permute(0, 1, 3, 4, 2)}

    def predict(self, path: Path, windows: Sequence[Window], question: str | None = None) -> AnswerPrediction:
        """The answer, averaged over the windows of a long file; each segment's frame as its first window saw it."""
        frames, weights, seen = [], [], set()
        for window in windows:
            first = round(window.start / self.input.segment_seconds)
            for k in np.flatnonzero(window.valid):
                if first + int(k) in seen:
                    continue
                seen.add(first + int(k))
                frames.append(window.parts["frames"][k])
                weights.append(window.parts["grounding"][k])
        cells = np.stack(weights).astype(np.float32)
        side = math.isqrt(cells.shape[1])
        return AnswerPrediction(
            path,
            () if self.grounds_only else self.labels,
            self.input.segment_seconds,
            "" if self.grounds_only or question is None else question,
            clip_mean(windows, "probabilities"),
            cells.reshape(len(cells), side, side),
            np.stack(frames),
            notes=window_notes(windows),
        )


def _match_loss(match: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Each clip's matching loss (B,), and which clips have one (B,) bool.

    Args:
        match: Logits of no and yes, of the own and of the other frame (B, T, 2, 2).
        batch: The batch.
    """
    _, found = strangers(batch)
    # A clip that lacks a stream has nothing to learn from here.
    found = found & batch.has_audio & batch.has_video
    truth = torch.tensor([1, 0], device=match.device).expand(match.shape[:-1])
    with full_precision(match):
        each = F.cross_entropy(match.float().flatten(0, 2), truth.flatten(), reduction="none")
    there = (batch.valid & found[:, None]).to(each.dtype)
    pairs = each.view(match.shape[:-1]).mean(dim=-1) * there
    return pairs.sum(dim=1) / batch.valid.sum(dim=1).clamp(min=1), found


def _match_scores(columns: Mapping[str, npt.NDArray[Any]]) -> Scores:
    segments = int(columns["segments"].sum())
    if not segments:
        raise AvtuneError(
            "no two of the clips to score are of different files, so nothing could be matched; give more videos"
        )
    own, other = (float(columns[name].sum()) / segments for name in ("matched", "told apart"))
    details = {
        "clips": len(columns["segments"]),
        "segments": segments,
        "own frames": own,
        "other frames": other,
    }
    return Scores("matching accuracy", (own + other) / 2, details)


def _accuracy_row(label: str, right: npt.NDArray[np.bool_]) -> dict[str, Any]:
    return {"label": label, "accuracy": float(right.mean()), "questions": len(right)}
