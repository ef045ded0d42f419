"""The plain heads: two linear layers, and what training leaves out between them."""

import pytest
import torch
from encoded_streams import streams

from avtune.config import HeadConfig
from avtune.errors import AvtuneError
from avtune.heads import HEADS, head_of


def test_dropout_acts_in_training_alone_and_from_the_seed() -> None:
    encoded = streams()
    torch.manual_seed(0)
    head = HEADS["segment"].build(12, 20, 5, HeadConfig(hidden=64, dropout=0.5))
    whole = head.eval()(encoded)
    expected = torch.cat([encoded.video_pooled, encoded.audio_pooled], -1) @ head.hidden.weight.T
    expected = (expected + head.hidden.bias) @ head.classes.weight.T + head.classes.bias
    torch.testing.assert_close(whole, expected)
    head.train()
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(head(encoded))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.allclose(drawn[0], drawn[2])
    assert not torch.allclose(drawn[0], whole)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (HeadConfig(name="psp", dropout=0.5), "leave head.dropout out"),
        (HeadConfig(name="cmbs", loss="binary_on_softmax"), "leave head.loss out"),
    ],
)
def test_settings_that_a_head_cannot_take_are_refused(config: HeadConfig, message: str) -> None:
    with pytest.raises(AvtuneError, match=message):
        head_of(config)
