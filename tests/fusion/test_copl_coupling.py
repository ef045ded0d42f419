"""CoPL's prompt bank against Equations 5 to 9 written as loops over single numbers."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from avtune.fusion.prompt_bank import BankConfig, MutualCoupling, PromptMapping, choose_prompts

Array = NDArray[np.float64]
SMALL = BankConfig(interaction_prompts=3, bank_size=4, latents=2, mapping_width=5, init="normal")


def softmax(scores: list[float]) -> list[float]:
    powers = [math.exp(score - max(scores)) for score in scores]
    return [power / sum(powers) for power in powers]


def dot(a: Array, b: Array) -> float:
    return sum(float(p) * float(q) for p, q in zip(a, b, strict=True))


def mixture(weights: list[float], rows: list[Array]) -> Array:
    return sum((w * row for w, row in zip(weights, rows, strict=True)), np.zeros_like(rows[0]))


def summarised(latents: Array, tokens: Array) -> list[Array]:
    """Equation 5."""
    return [
        latent + mixture(softmax([dot(latent, token) for token in tokens]), list(tokens))
        for latent in latents
    ]


def chosen(summary: list[Array], entries: Array, config: BankConfig) -> list[Array]:
    """Equations 6 and 7."""
    factor = 1.0 if config.similarity_scale == "none" else 1 / math.sqrt(entries.shape[-1])
    if config.bank == "vectors":
        return [mixture(softmax([factor * dot(s, p) for p in entries]), list(entries)) for s in summary]
    query = mixture([1 / len(summary)] * len(summary), summary)
    length = entries.shape[1]
    if config.similarity == "entry":
        scores = [factor * sum(dot(query, entry[k]) for k in range(length)) / length for entry in entries]
        return [mixture(softmax(scores), [entry[k] for entry in entries]) for k in range(length)]
    return [
        mixture(softmax([factor * dot(query, entry[k]) for entry in entries]), [e[k] for e in entries])
        for k in range(length)
    ]


def mapped(mapping: PromptMapping, row: Array) -> Array:
    """Equation 8."""
    down, _, up = mapping
    hidden = [max(0.0, dot(w, row) + b) for w, b in zip(array(down.weight), array(down.bias), strict=True)]  # type: ignore[arg-type]
    return np.array(
        [dot(w, np.array(hidden)) + b for w, b in zip(array(up.weight), array(up.bias), strict=True)]  # type: ignore[arg-type]
    )


def array(tensor: torch.Tensor) -> Array:
    return tensor.detach().double().numpy()


def by_loops(
    coupling: MutualCoupling, audio: Array, video: Array, segments: int
) -> tuple[list[list[Array]], list[list[Array]]]:
    config = coupling.config
    forth = coupling.mapping
    back = coupling.mapping if coupling.mapping_back is None else coupling.mapping_back
    entries = {"audio": array(coupling.entries)}
    if coupling.video_entries is not None:
        entries["video"] = array(coupling.video_entries)
    elif coupling.widen is not None:
        whole = entries["audio"].reshape(-1, entries["audio"].shape[-1])
        widened = np.array([mapped(coupling.widen, row) for row in whole])
        entries["video"] = widened.reshape(*entries["audio"].shape[:-1], -1)
    else:
        entries["video"] = entries["audio"]
    prompts: dict[str, list[list[Array]]] = {"audio": [], "video": []}
    for frame in range(len(audio)):
        first = frame - frame % segments
        of_one: dict[str, list[Array]] = {}
        for name, tokens, latents in (
            ("audio", audio, coupling.audio_latents), ("video", video, coupling.video_latents),
        ):  # fmt: skip
            seen = tokens[frame]
            if config.summary_span == "clip":
                seen = np.concatenate(list(tokens[first : first + segments]))
            if latents is None:
                of_one[name] = list(entries[name])
            else:
                of_one[name] = chosen(summarised(array(latents), seen), entries[name], config)
        prompts["audio"].append([*of_one["audio"], *(mapped(back, row) for row in of_one["video"])])
        prompts["video"].append([*of_one["video"], *(mapped(forth, row) for row in of_one["audio"])])
    return prompts["audio"], prompts["video"]


@pytest.mark.parametrize("dims", [(6, 6), (4, 6), (6, 4)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"similarity": "entry"},
        {"bank": "vectors"},
        {"bank": "vectors", "similarity_scale": "root_width", "bank_sharing": "projected"},
        {"bank": "none"},
        {"similarity_scale": "root_width", "summary_span": "clip"},
        {"bank_sharing": "projected"},
        {"bank_sharing": "separate", "mapping_sharing": "separate"},
        {"latents": 1, "summary_span": "clip", "similarity": "entry"},
    ],
    ids=lambda options: "+".join(map(str, options.values())) or "paper",
)
def test_equations_5_to_9_equal_loops_over_single_numbers(
    dims: tuple[int, int], options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    coupling = MutualCoupling(*dims, replace(SMALL, **options)).double()
    with torch.no_grad():
        for weight in coupling.parameters():
            weight.normal_()
    audio = torch.randn(6, 5, dims[0], dtype=torch.float64)
    video = torch.randn(6, 7, dims[1], dtype=torch.float64)
    with torch.no_grad():
        ours = coupling(audio, video, 3)
    theirs = by_loops(coupling, array(audio), array(video), 3)
    for mine, loops, dim in zip(ours, theirs, dims, strict=True):
        assert mine.shape == (6, 2 * SMALL.interaction_prompts, dim)
        np.testing.assert_allclose(mine.numpy(), np.array(loops), atol=1e-12, rtol=1e-10)


def test_widths_decide_what_is_shared_and_options_override_it() -> None:
    def parts(dims: tuple[int, int], **options: Any) -> tuple[bool, bool, bool]:
        coupling = MutualCoupling(*dims, replace(SMALL, **options))
        return (
            coupling.video_entries is None,
            coupling.widen is not None,
            coupling.mapping_back is None,
        )

    assert parts((6, 6)) == (True, False, True)
    assert parts((4, 6)) == (False, False, False)
    assert parts((4, 6), bank_sharing="projected") == (True, True, False)
    assert parts((6, 6), bank_sharing="projected") == (True, False, True)
    assert parts((6, 6), bank_sharing="separate", mapping_sharing="separate") == (False, False, False)
    assert parts((6, 6), bank="none") == (False, False, True)


@settings(deadline=None, max_examples=25)
@given(
    batch=st.integers(1, 3), entries=st.integers(1, 5), length=st.integers(1, 4), latents=st.integers(1, 4),
    dim=st.integers(1, 9), similarity=st.sampled_from(["position", "entry"]), seed=st.integers(0, 99),
)  # fmt: skip
def test_what_is_chosen_lies_between_the_entries(
    batch: int, entries: int, length: int, latents: int, dim: int, similarity: str, seed: int
) -> None:
    torch.manual_seed(seed)
    bank, summary = torch.randn(entries, length, dim), 3 * torch.randn(batch, latents, dim)
    prompts = choose_prompts(summary, bank, similarity=similarity)
    assert prompts.shape == (batch, length, dim)
    assert (prompts <= bank.amax(0) + 1e-5).all()
    assert (prompts >= bank.amin(0) - 1e-5).all()
    # The order of the entries means nothing.
    order = torch.randperm(entries)
    torch.testing.assert_close(choose_prompts(summary, bank[order], similarity=similarity), prompts)


def test_a_summary_that_is_an_entry_chooses_it() -> None:
    bank = torch.eye(4).reshape(4, 1, 4).repeat(1, 3, 1)
    for similarity in ("position", "entry"):
        prompts = choose_prompts(50 * torch.eye(4)[2].reshape(1, 1, 4), bank, similarity=similarity)
        torch.testing.assert_close(prompts[0], bank[2])
    torch.testing.assert_close(
        choose_prompts(50 * torch.eye(4)[[1, 3]].unsqueeze(0), torch.eye(4))[0], torch.eye(4)[[1, 3]]
    )
    level = choose_prompts(50 * torch.eye(4)[2].reshape(1, 1, 4), bank, scale=0.0)
    torch.testing.assert_close(level[0], bank.mean(0))


@pytest.mark.parametrize("patch", [4, 16])
def test_prompts_start_within_the_bound_of_visual_prompt_tuning(patch: int) -> None:
    torch.manual_seed(0)
    config = replace(SMALL, init="uniform", init_patch=patch, bank_size=50, interaction_prompts=20)
    entries = MutualCoupling(64, 64, config).entries.detach()
    bound = math.sqrt(6 / (3 * patch**2 + 64))
    assert 0.99 * bound < entries.abs().max() <= bound
    assert abs(float(entries.std()) - bound / math.sqrt(3)) < 0.01 * bound
    normal = MutualCoupling(64, 64, replace(config, init="normal")).entries.detach()
    assert abs(float(normal.std()) - 0.02) < 2e-4
