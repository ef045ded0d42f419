"""The ruler: every packaged recipe's weights and costs beside what its paper printed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from avtune.config import RunConfig
from avtune.counting import Parameters, count_parameters
from avtune.model import AudioVisualModel
from avtune.profile import Cost, measure
from avtune.recipes import parse_config, recipe_names, recipe_path
from avtune.recipes.published import Published, agrees, published

DATASET_LABELS = {"ave": 28, "bandstand": 10}


@dataclass(frozen=True)
class ProfileRow:
    """A recipe under the ruler.

    Attributes:
        recipe: Its name.
        method: What is between and within the towers, ``fusion:preset+tuning``.
        tower: Tower of the frames, and of the sound where that is another.
        task: Task, head and dataset.
        parameters: Numbers of weights, that of the dataset's labels included.
        cost: Multiply-adds and bytes kept; ``None`` where only weights were counted.
        published: What the paper printed; ``None``: no paper has this row.
    """

    recipe: str
    method: str
    tower: str
    task: str
    parameters: Parameters
    cost: Cost | None
    published: Published | None

    @property
    def trainable_without_head(self) -> int:
        """Weights trained, the task head left out."""
        return self.parameters.trainable - self.parameters.parts["head"]

    @property
    def total_without_head(self) -> int:
        """All weights, task head and unused class head left out."""
        return self.parameters.total - self.parameters.parts["head"]

    @property
    def verdict(self) -> str:
        """``equal`` in the printed digits, or why not; empty where nothing was printed."""
        if self.published is None or not self.published.counted:
            return ""
        return self.published.differs or "equal"

    @property
    def stands(self) -> bool:
        """Whether the counts agree with the printed ones, or the table says why not."""
        return self.published is None or bool(self.published.differs) or self.equals(self.published)

    def equals(self, printed: Published) -> bool:
        """Whether every number of weights that is printed is that of this row."""
        pairs = (
            (self.parameters.trainable, printed.trainable),
            (self.parameters.total_published, printed.total),
        )
        return all(agrees(count, text) for count, text in pairs if text is not None)

    def as_json(self) -> dict[str, object]:
        """The row, JSON-able; weights are counts, published ones as printed, in millions."""
        row, cost, weights = self.published, self.cost, self.parameters
        content: dict[str, object] = {
            "recipe": self.recipe,
            "method": self.method,
            "tower": self.tower,
            "size": self.recipe.rsplit("/", 1)[-1],
            "task": self.task,
            "trainable": weights.trainable,
            "trainable_without_head": self.trainable_without_head,
            "total": weights.total,
            "total_without_head": self.total_without_head,
            "total_with_class_head": weights.total_published,
            "parts": weights.parts,
            "published": None,
            "verdict": self.verdict,
        }
        if row is not None:
            content["published"] = {
                "source": row.source, "accuracy": row.accuracy, "trainable": row.trainable, "total": row.total
            }  # fmt: skip
        if cost is not None:
            content |= {
                "tower_gmacs": round(cost.tower_gmacs, 3),
                "method_gmacs": round(cost.method_gmacs, 3),
                "saved_mib": round(cost.saved_mib, 1),
                "tower_saved_mib": round(cost.tower_saved_mib, 1),
            }
        return content


def profile_all(names: Iterable[str] | None = None, *, costs: bool = True) -> Iterator[ProfileRow]:
    """Profile recipes on the meta device, one after another.

    Args:
        names: Recipes; ``None``: all that are packaged.
        costs: Also count multiply-adds and bytes kept for the backward pass, which takes seconds each.
    """
    for name in recipe_names() if names is None else names:
        config = parse_config(base=recipe_path(name))
        labels = tuple(f"label {k}" for k in range(DATASET_LABELS[name.partition("/")[0]]))
        if costs:
            cost = measure(config, labels)
            parameters = cost.parameters
        else:
            cost, parameters = None, count_parameters(AudioVisualModel(config, labels, device="meta").network)
        yield ProfileRow(
            name, _method(config), _tower(config), f"{config.head.task}, {config.data.name}",
            parameters, cost, published().get(name),
        )  # fmt: skip


def _method(config: RunConfig) -> str:
    encoder = config.encoder
    words = encoder.fusion + (f":{encoder.preset}" if encoder.preset else "")
    if encoder.tuning:
        words += f"+{encoder.tuning}" + (f":{encoder.tuning_preset}" if encoder.tuning_preset else "")
    return words if config.head.name == "segment" else f"{words}, head {config.head.name}"


def _tower(config: RunConfig) -> str:
    encoder = config.encoder
    alone = encoder.audio_tower in (None, encoder.tower)
    return encoder.tower if alone else f"{encoder.tower} and {encoder.audio_tower}"
