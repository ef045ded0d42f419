"""MA-AVT on the processes that torchrun started; what they found goes to files.

Usage: ``torchrun --nproc-per-node 2 ma_avt_driver.py FOLDER``.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torch.distributed as dist
from made_up_clips import MadeUpClips
from torch import Tensor
from training_case import small_config, small_trainer

from avtune.config import EncoderConfig, HeadConfig
from avtune.errors import AvtuneError
from avtune.fusion.contrastive import BlockwiseContrast

# Rows of each process: as many, differently many, none of which takes part, and none at all.
SPLITS = {"equal": (4, 4), "unequal": (5, 3), "one_without_foreground": (6, 2), "one_without_rows": (8, 0)}
FEATURES = ("shared_tokens", "max_similarity")
PROJECTIONS = ("none", "per_block")
RUNS = {"class_tokens_head": "ma_avt", "segment_head": "segment"}


def contrast_case(feature: str, projection: str, rows: slice) -> dict[str, Tensor]:
    """Loss and gradients of some rows, as seen by the process that holds them.

    Gradients by features belong to the rows; those by the projections are what this process adds to the whole.
    """
    torch.manual_seed(0)
    audio, video, patches = torch.randn(2, 8, 6), torch.randn(2, 8, 6), torch.randn(2, 8, 5, 6)
    takes_part = torch.tensor([True, False, True, True, True, True, False, False])
    contrast = BlockwiseContrast(
        [(6, 6)] * 2,
        feature,
        projection=projection,
        projection_dim=4,
        temperature=0.07,
        reduce="sum",
        weight=1.0,
    )  # type: ignore[arg-type]
    given = [
        x[:, rows].clone().requires_grad_() for x in (audio, patches if "similarity" in feature else video)
    ]
    loss = contrast(list(given[0]), list(given[1]), takes_part[rows])
    # As the training loop: each process brings the loss in with its share of all items.
    (loss * len(takes_part[rows]) / 8).backward()
    found = {"loss": loss.detach(), "audio": given[0].grad, "video": given[1].grad}
    return {**found, **{name: weight.grad for name, weight in contrast.named_parameters()}}  # type: ignore[dict-item]


def run(folder: Path, head: str, batch_size: int) -> dict[str, Any]:
    """A training run of MA-AVT; plain gradient descent, so that small gradients stay small."""
    config = small_config(batch_size=batch_size)
    config = replace(
        config,
        encoder=EncoderConfig(
            pretrained=False, fusion="ma_avt", options={"projection": "per_block", "projection_dim": 8}
        ),
        head=HeadConfig(name=head, hidden=16),
    )  # fmt: skip
    with patch(
        "avtune.train.updates.build_optimizer", lambda net, _: torch.optim.SGD(net.parameters(), lr=0.01)
    ):
        # Some update has only damaged clips on one process.
        trainer = small_trainer(config, folder, MadeUpClips(13, damaged=(0, 2, 4, 5)))
        try:
            trainer.fit()
            error = ""
        except AvtuneError as problem:
            error = str(problem)
    if trainer.accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(trainer.network.trained_state(), folder / "last_weights.pt")
    return {"error": error, "step": trainer.progress.step}


def main(root: Path) -> None:
    rank = int(os.environ["RANK"])
    facts = {name: run(root / name, head, batch_size=2) for name, head in RUNS.items()}
    (root / f"facts_{rank}.json").write_text(json.dumps(facts))
    for split, counts in SPLITS.items():
        rows = slice(0, counts[0]) if rank == 0 else slice(counts[0], 8)
        for feature in FEATURES:
            for projection in PROJECTIONS:
                found = contrast_case(feature, projection, rows)
                torch.save(found, root / f"{split}_{feature}_{projection}_{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
