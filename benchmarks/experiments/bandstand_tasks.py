"""What each task reaches on bandstand beside its floors: the commands of the pages in docs/tasks, once for each seed.

    python benchmarks/experiments/bandstand_tasks.py --data clips --clips 1000 --seeds 0 1 2 --runs runs/tasks

The clips are rendered once, unless they are there. Runs that are finished are not made again, and one that was cut
short goes on. ``--jobs`` runs several at once, which share a GPU well: the bundled backbone leaves it idle most of
the time.
"""

from __future__ import annotations

from typing import Any

from seeded_runs import carry_out, experiment_parser, finished_run

TASKS = ("lavish", "classification", "segmentation", "question_answering", "parsing", "retrieval")
COMPARING = "retrieval"
"""Compares both streams, so that no model of one of them can be its floor."""
DETAILS = (
    "miou_sounding",
    "lit_in_silence",
    "f_score",
    "per_class",
    "tables",
    "audio_to_video",
    "video_to_audio",
)


def main() -> None:
    """Render, train and write the results."""
    parser = experiment_parser(__doc__, "bandstand_tasks.json")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument(
        "--without-floors",
        nargs="+",
        choices=TASKS,
        default=[],
        help="tasks whose floors of single streams are not trained: the model itself with a stream removed stands in",
    )
    options = parser.parse_args()

    def run(wanted: tuple[str, int]) -> dict[str, Any]:
        task, seed = wanted
        floors = task not in (COMPARING, *options.without_floors)
        metrics = finished_run(
            options.runs / f"{task}-{seed}", "train", f"bandstand/{task}_nano", f"--train.seed={seed}",
            f"--train.floors={floors}", f"--data.root={options.data}", *options.settings,
        )  # fmt: skip
        details = {name: metrics["details"][name] for name in DETAILS if name in metrics["details"]}
        kept = {
            name: metrics[name]
            for name in ("score", "floors", "validation", "clips", "scored_clips", "seconds")
        }
        return {"task": task, "seed": seed, **kept, "details": details}

    wanted = [(task, seed) for seed in options.seeds for task in options.tasks]
    carry_out(__file__, options, wanted, run)


if __name__ == "__main__":
    main()
