"""Reports: one self-contained HTML page for a run or a prediction, and timelines as JSON, CSV and PNG."""

from avtune.report.page import RunReport, write_prediction_page, write_run_page
from avtune.report.picture import timeline_png
from avtune.report.prediction_files import write_prediction
from avtune.report.shown import ShownClip
from avtune.report.timeline import (
    TimelineClip,
    events,
    prediction_json,
    write_prediction_csv,
    write_prediction_json,
)

__all__ = [
    "RunReport",
    "ShownClip",
    "TimelineClip",
    "events",
    "prediction_json",
    "timeline_png",
    "write_prediction",
    "write_prediction_csv",
    "write_prediction_json",
    "write_prediction_page",
    "write_run_page",
]
