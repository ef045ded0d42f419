"""What pretraining is worth on bandstand: the same recipe from a pretraining run and from the same start without it.

    python benchmarks/experiments/pretraining_bandstand.py --data clips --runs pre
    python benchmarks/experiments/finetuning_bandstand.py --data clips --runs fine --pretrained pre/avsiam-{seed}

Both are scored with sound and frames, and with each alone (their floors). Runs that are finished are not made again,
and one that was cut short goes on. ``{seed}`` in ``--pretrained`` stands for each seed, so that pretraining is repeated
too.
"""

from __future__ import annotations

from typing import Any

from seeded_runs import carry_out, experiment_parser, finished_run

RECIPE = "bandstand/avsiam_finetune_nano"
STARTS = ("pretrained", "not pretrained")
KEPT = ("score", "floors", "validation", "clips", "scored_clips", "seconds", "parameters")


def main() -> None:
    """Fine-tune from both starts and write the results."""
    parser = experiment_parser(__doc__, "finetuning_bandstand.json")
    parser.add_argument("--pretrained", required=True, help="folder of the pretraining run of {seed}")
    options = parser.parse_args()

    def run(wanted: tuple[str, int]) -> dict[str, Any]:
        start, seed = wanted
        settings = [f"--train.seed={seed}", f"--data.root={options.data}", *options.settings]
        if start == "pretrained":
            settings.append(f"--encoder.pretraining={options.pretrained.format(seed=seed)}")
        folder = options.runs / f"{start.replace(' ', '_')}-{seed}"
        metrics = finished_run(folder, "train", RECIPE, *settings)
        return {"start": start, "seed": seed, **{name: metrics[name] for name in KEPT}}

    carry_out(__file__, options, [(start, seed) for seed in options.seeds for start in STARTS], run)


if __name__ == "__main__":
    main()
