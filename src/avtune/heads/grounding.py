"""Where a sound comes from, and whether a frame and a sound belong together (Li et al., CVPR 2022)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.encoder import Encoded
from avtune.heads.segments import cells

GROUNDING, MATCH = "question_answering.grounding", "question_answering.match"
MATCH_WIDTHS = (512, 256, 128)


class Grounded(NamedTuple):
    """What grounding gives of each segment.

    Attributes:
        sound: (batch, T, width).
        picture: The frame, as a whole and where the sound is (batch, T, width).
        weights: How much each cell is looked at (batch, T, cells); a segment's sum to one.
        match: Logits of not belonging together and of doing so (batch, T, 2, 2): of the frame and its own sound, and of
            another file's frame with this sound; ``None``: not asked for.
    """

    sound: Tensor
    picture: Tensor
    weights: Tensor
    match: Tensor | None


class Matcher(nn.Module):
    """Four linear layers that tell whether a sound and a frame belong together.

    Args:
        width: Channels of each.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = (2 * width, *MATCH_WIDTHS)
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, MATCH_WIDTHS, strict=False))
        self.answer = nn.Linear(MATCH_WIDTHS[-1], 2)

    def forward(self, sound: Tensor, picture: Tensor) -> Tensor:
        """Logits of no and yes (..., 2) from two vectors (..., width)."""
        x = torch.cat([sound, picture], dim=-1)
        for layer in self.hidden:
            x = torch.relu(layer(x))
        logits: Tensor = self.answer(x)
        return logits


class Grounding(nn.Module):
    """Each frame is looked at where its patches resemble its sound.

    ``w = softmax(p̂ · ŝ)`` over the cells, of patches and sound of length one, without a temperature; the frame is
    ``W tanh [mean p, Σ w p̂]``, as the authors' code has it.

    Args:
        audio_dim: Channels of the sound.
        video_dim: Channels of a cell.
        width: Channels of what comes out.
        project: Whether both streams are mapped to the width first; otherwise they must have it.
        normalise: Whether both streams are brought to mean zero and variance one over their channels before that.
        matches: Whether it is also learned which frame and sound belong together.
    """

    def __init__(
        self,
        audio_dim: int,
        video_dim: int,
        width: int,
        *,
        project: bool = True,
        normalise: bool = False,
        matches: bool = True,
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.video_map = nn.Linear(video_dim, width) if project else nn.Identity()
        self.audio_map = nn.Linear(audio_dim, width) if project else nn.Identity()
        self.audio = nn.Linear(width, width)
        self.join = nn.Linear(2 * width, width)
        self.match = Matcher(width) if matches else None

    def forward(self, encoded: Encoded) -> Grounded:
        """Ground the sound of each segment in its frame.

        Args:
            encoded: Streams after their towers. Where ``stranger`` is there, its frames are matched with the sound
                too.
        """
        # The authors map all tokens of the sound and average then, which is the same.
        sound = self.audio(torch.relu(self.audio_map(self._enter(encoded.audio_pooled))))
        patches = cells(encoded)
        picture, weights = self.look(sound, patches)
        match = None
        if self.match is not None and encoded.stranger is not None:
            other = encoded.stranger[:, encoded.video_prefix :].reshape(patches.shape)
            strange, _ = self.look(sound, other)
            match = torch.stack([self.match(sound, picture), self.match(sound, strange)], dim=2)
        return Grounded(sound, picture, weights, match)

    def look(self, sound: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Frames as a sound sees them.

        Args:
            sound: (batch, T, width).
            patches: (batch, T, cells, video dim).

        Returns:
            Frames (batch, T, width), and the weight of each cell (batch, T, cells).
        """
        mapped = self.video_map(self._enter(patches))
        unit = F.normalize(mapped, dim=-1)
        weights = (unit @ F.normalize(sound, dim=-1).unsqueeze(-1)).squeeze(-1).softmax(dim=-1)
        found = (weights.unsqueeze(-2) @ unit).squeeze(-2)
        picture: Tensor = self.join(torch.tanh(torch.cat([mapped.mean(dim=-2), found], dim=-1)))
        return picture, weights

    def _enter(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:]) if self.normalise else x


class GroundingHead(nn.Module):
    """Grounding alone: the first of the two stages in which the authors train.

    Args:
        grounding: What is trained.
    """

    def __init__(self, grounding: Grounding) -> None:
        super().__init__()
        self.grounding = grounding

    def forward(self, encoded: Encoded) -> Tensor:
        """Match logits (batch, T, 2, 2); where no other frames are given, own ones stand in their place.

        The weights of the cells go into the notes.
        """
        if encoded.stranger is None:
            encoded.stranger = encoded.video
        found: Grounded = self.grounding(encoded)
        encoded.notes.record(GROUNDING, found.weights)
        assert found.match is not None
        return found.match
