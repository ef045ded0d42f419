"""Runs: from a configuration to a run folder."""

from avtune.runs.clips import Clips, RunObserver, prepare_clips, read_collection
from avtune.runs.page import run_report, shown_clip
from avtune.runs.scoring import FLOORS, METRICS, ScoreSheet, blind_floors, read_metrics, score_run
from avtune.runs.training import REPORT, fit_model, train_run

__all__ = [
    "FLOORS",
    "METRICS",
    "REPORT",
    "Clips",
    "RunObserver",
    "ScoreSheet",
    "blind_floors",
    "fit_model",
    "prepare_clips",
    "read_collection",
    "read_metrics",
    "run_report",
    "score_run",
    "shown_clip",
    "train_run",
]
