"""Runs: from a configuration to a run folder."""

from avtune.runs.clips import Clips, RunObserver, prepare_clips, read_collection
from avtune.runs.page import run_report, timeline_clip
from avtune.runs.scoring import FLOORS, METRICS, ScoreSheet, read_metrics, score_run, training_truths
from avtune.runs.training import REPORT, fit_model, train_run

__all__ = [
    "FLOORS",
    "METRICS",
    "REPORT",
    "Clips",
    "RunObserver",
    "ScoreSheet",
    "fit_model",
    "prepare_clips",
    "read_collection",
    "read_metrics",
    "run_report",
    "score_run",
    "timeline_clip",
    "train_run",
    "training_truths",
]
