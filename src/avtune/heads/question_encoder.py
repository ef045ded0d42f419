"""A question as one vector: learned with the task, or from a frozen language model."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from avtune.errors import AvtuneError

LONGEST_TEXT = 40
"""Tokens of a frozen language model that a question is cut to."""


class RecurrentQuestion(nn.Module):
    """``W tanh [h, c]`` of an LSTM over ``tanh`` of the words' vectors, padding included.

    Args:
        words: Number of words, ``<pad>`` among them.
        width: Channels of words, states and result.
    """

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.join = nn.Linear(2 * width, width)

    def forward(self, question: Tensor) -> Tensor:
        """Read questions.

        Args:
            question: Word numbers (batch, words).

        Returns:
            (batch, width).
        """
        _, (hidden, cell) = self.lstm(torch.tanh(self.words(question)))
        read: Tensor = self.join(torch.tanh(torch.cat([hidden[-1], cell[-1]], dim=-1)))
        return read


class FrozenText(nn.Module):
    """A pretrained language model that nothing trains; a run does not save it, its name says what it is.

    Args:
        name: Name on the Hugging Face Hub, or a folder. Weights are read as safetensors alone. On the meta device
            only the shape is read.

    Attributes:
        dim: Channels of a question.

    Raises:
        AvtuneError: The package ``transformers`` is absent, the model cannot be read, or is no plain text encoder.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        library = transformers()
        try:
            config = library.AutoConfig.from_pretrained(name)
            if not isinstance(getattr(config, "hidden_size", None), int) or config.is_encoder_decoder:
                raise AvtuneError(f"{name} is no plain text encoder; choose a model such as BERT or MiniLM")
            if torch.get_default_device().type == "meta":
                self.model = library.AutoModel.from_config(config)
            else:
                self.model = library.AutoModel.from_pretrained(name, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise AvtuneError(unreadable(name, error)) from error
        self.dim: int = config.hidden_size
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode; ``mode`` is ignored."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, tokens: Tensor) -> Tensor:
        """The mean over a question's tokens.

        Args:
            tokens: (batch, tokens) numbers as :class:`TextTokens` gives them; -1 fills up.

        Returns:
            (batch, dim).
        """
        present = tokens >= 0
        states = self.model(input_ids=tokens.clamp(min=0), attention_mask=present.long()).last_hidden_state
        mean: Tensor = (states * present.unsqueeze(-1)).sum(dim=1) / present.sum(dim=1, keepdim=True).clamp(
            min=1
        )
        return mean


class FrozenQuestion(nn.Module):
    """A frozen language model's vector of the question, mapped to the head's width.

    Args:
        name: See :class:`FrozenText`.
        width: Channels of the result.
    """

    def __init__(self, name: str, width: int) -> None:
        super().__init__()
        self.text = FrozenText(name)
        self.map = nn.Linear(self.text.dim, width)

    def forward(self, question: Tensor) -> Tensor:
        """Map token numbers (batch, tokens), filled up with -1, to (batch, width)."""
        read: Tensor = self.map(self.text(question))
        return read


class TextTokens:
    """Questions as the token numbers of a frozen language model.

    Args:
        name: See :class:`FrozenText`.

    Raises:
        AvtuneError: As :class:`FrozenText`.
    """

    def __init__(self, name: str) -> None:
        try:
            self._tokenizer = transformers().AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise AvtuneError(unreadable(name, error)) from error

    def __call__(self, text: str) -> Tensor:
        """Token numbers (LONGEST_TEXT,) int64, -1 behind the last; words joined by underscores are told apart."""
        found = self._tokenizer(text.replace("_", " "), truncation=True, max_length=LONGEST_TEXT)["input_ids"]
        tokens = torch.full((LONGEST_TEXT,), -1)
        tokens[: len(found)] = torch.tensor(found)
        return tokens


def transformers() -> Any:
    """The package ``transformers``, imported where a frozen language model is asked for and nowhere else.

    Raises:
        AvtuneError: It is absent.
    """
    try:
        import transformers as library
    except ImportError:
        raise AvtuneError(
            "head.options.text frozen needs the package transformers; run pip install 'avtune[text]'"
        ) from None
    return library


def unreadable(name: str, error: Exception) -> str:
    """One line on a language model that cannot be read."""
    reason = " ".join(str(error).split())
    return (
        f"head.options.text_model {name} cannot be read ({reason[:200]}); give the name of a model on the "
        "Hugging Face Hub, or a folder that holds one as safetensors"
    )
