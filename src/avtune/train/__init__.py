"""Training: order of clips, optimiser, loop, exact resumption, evaluation. The only place that imports Accelerate."""

from avtune.train.evaluate import Evaluation, evaluate
from avtune.train.loop import FitResult, Trainer
from avtune.train.observer import Observer
from avtune.train.stop import Stopped
from avtune.train.updates import NonFiniteLossError

__all__ = ["Evaluation", "FitResult", "NonFiniteLossError", "Observer", "Stopped", "Trainer", "evaluate"]
