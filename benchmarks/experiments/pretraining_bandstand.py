"""What pretraining teaches on bandstand: zero-shot retrieval beside chance and the same model before it, over seeds.

    python benchmarks/experiments/pretraining_bandstand.py --data clips --clips 300 --seeds 0 1 2 --runs runs/pretrained

The clips are rendered once, unless they are there. Runs that are finished are not made again, and one that was cut
short goes on. Each runs on the accelerator where there is one. ``runs/pretrained/avsiam-0`` and so on are what
``finetuning_bandstand.py`` begins from.
"""

from __future__ import annotations

from typing import Any

from seeded_runs import carry_out, experiment_parser, finished_run

OBJECTIVES = ("avsiam", "cav_mae")
KEPT = ("score", "floors", "details", "clips", "scored_clips", "seconds", "parameters")


def main() -> None:
    """Render, pretrain and write the results."""
    parser = experiment_parser(__doc__, "pretraining_bandstand.json")
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=OBJECTIVES)
    options = parser.parse_args()

    def run(wanted: tuple[str, int]) -> dict[str, Any]:
        objective, seed = wanted
        metrics = finished_run(
            options.runs / f"{objective}-{seed}", "pretrain", f"pretrain/bandstand_nano_{objective}",
            f"--train.seed={seed}", f"--data.root={options.data}", *options.settings,
        )  # fmt: skip
        return {"objective": objective, "seed": seed, **{name: metrics[name] for name in KEPT}}

    wanted = [(objective, seed) for seed in options.seeds for objective in options.objectives]
    carry_out(__file__, options, wanted, run)


if __name__ == "__main__":
    main()
