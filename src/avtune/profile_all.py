"""The ruler: every packaged recipe's weights and costs beside what its paper printed; every method on every tower."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from avtune.backbones import Tower
from avtune.config import EncoderConfig, RunConfig
from avtune.counting import Parameters, count_parameters
from avtune.errors import AvtuneError
from avtune.fusion import METHODS
from avtune.model import AudioVisualModel
from avtune.profile import Cost, TowerCosts, measure_model
from avtune.recipes import parse_config, recipe_names, recipe_path
from avtune.recipes.published import Published, agrees, published
from avtune.tuning import TUNINGS

DATASET_LABELS = {
    "audioset": 527,
    "ave": 28,
    "avsbench_ms3": 0,
    "avsbench_s4": 0,
    "avsbench_semantic": 70,
    "bandstand": 10,
    "bandstand_classes": 10,
    "bandstand_pairs": 10,
    "crema_d": 6,
    "kinetics_sound": 31,
    "llp": 25,
    "msrvtt": 20,
    "music_avqa": 42,
    "questions": 20,
    "vggsound": 309,
}
"""Labels, or answers, of the dataset that ``data.name`` names."""
DATASET_WORDS = {"music_avqa": 93, "questions": 53}
"""Words of its questions."""
GRID_TOWERS = {
    "ViT-B/16": "vit_base_patch16_224.augreg_in21k",
    "ViT-L/16": "vit_large_patch16_224.augreg_in21k",
    "Swin-V2-B": "swinv2_base_window12_192.ms_in22k",
    "Swin-V2-L": "swinv2_large_window12_192.ms_in22k",
}
RECIPE = re.compile(r"[^/]+/(.+?)_((?:vit|clip|swin|swinv2)_[bl](?:_htsat|_ast)?|nano)(?:_(.+))?")


@dataclass(frozen=True)
class ProfileRow:
    """A recipe, or a method on a tower, under the ruler.

    Attributes:
        recipe: Its name; ``None``: no recipe, the method's first preset on a tower.
        config: What it states.
        parameters: Numbers of weights, with a head for the dataset's labels.
        sound_stem: Weights of a second copy of the tower's first ones, which some authors' models hold for the sound.
        cost: Multiply-adds and bytes kept; ``None`` where only weights were counted.
        published: What the paper printed; ``None``: no paper has this row.
    """

    recipe: str | None
    config: RunConfig
    parameters: Parameters
    sound_stem: int
    cost: Cost | None
    published: Published | None

    @property
    def method(self) -> str:
        """What is trained: ``fusion``, ``fusion+tuning``, and the head where it is not the plain one."""
        words = "+".join(self.config.encoder.methods)
        head = self.config.head.name
        return words if head in ("segment", *self.config.encoder.methods) else f"{words}, head {head}"

    @property
    def tower(self) -> str:
        """Tower of the frames, and of the sound where that is another."""
        encoder = self.config.encoder
        alone = encoder.audio_tower in (None, encoder.tower)
        return encoder.tower if alone else f"{encoder.tower} and {encoder.audio_tower}"

    @property
    def size(self) -> str:
        """Size or variant, the end of the recipe's name behind method and tower; empty where there is one only."""
        match = RECIPE.fullmatch(self.recipe or "")
        return (match[3] or "") if match else ""

    @property
    def trainable_without_head(self) -> int:
        """Weights trained, the task head left out."""
        return self.parameters.trainable - self.parameters.parts["head"]

    @property
    def total(self) -> int:
        """All weights as the paper of this row counts them; where there is none, all that is built."""
        if self.published is None or self.published.total_holds == "nothing":
            return self.parameters.total
        if self.published.total_holds == "sound_stem":
            return self.parameters.total + self.sound_stem
        return self.parameters.total_published

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
        trained = self.parameters.trainable if printed.trained_with_head else self.trainable_without_head
        pairs = ((trained, printed.trainable), (self.total, printed.total))
        return all(agrees(count, text) for count, text in pairs if text is not None)

    def as_json(self) -> dict[str, object]:
        """The row, JSON-able; weights are counts, published ones as printed, in millions."""
        row, cost, weights, encoder = self.published, self.cost, self.parameters, self.config.encoder
        content: dict[str, object] = {
            "recipe": self.recipe,
            "method": self.method,
            "preset": encoder.tuning_preset if encoder.fusion == "frozen" else encoder.preset,
            "tower": self.tower,
            "size": self.size,
            "task": self.config.head.task,
            "dataset": self.config.data.name if self.recipe else None,
            "trainable": weights.trainable,
            "trainable_without_head": self.trainable_without_head,
            "total": self.total,
            "total_built": weights.total,
            "total_without_head": weights.total - weights.parts["head"],
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


@dataclass(frozen=True)
class Refusal:
    """A method that does not walk a tower.

    Attributes:
        method: The method.
        tower: The tower.
        reason: Why.
    """

    method: str
    tower: str
    reason: str


def profile_all(names: Iterable[str] | None = None, *, costs: bool = True) -> Iterator[ProfileRow]:
    """Profile recipes on the meta device, one after another.

    Args:
        names: Recipes; ``None``: all that are packaged.
        costs: Also count multiply-adds and bytes kept for the backward pass, which takes seconds each.
    """
    known: TowerCosts = {}
    for name in recipe_names() if names is None else names:
        yield _row(name, parse_config(base=recipe_path(name)), known if costs else None)


def profile_grid(
    *, costs: bool = True, began: Callable[[str], None] | None = None
) -> Iterator[ProfileRow | Refusal]:
    """Profile every method and every tuning, in its first preset, on the towers of ``GRID_TOWERS``.

    Args:
        costs: See :func:`profile_all`.
        began: Called with the name of each combination before it is measured.
    """
    known: TowerCosts = {}
    for tower in GRID_TOWERS.values():
        for fusion, tuning in grid_methods():
            encoder = EncoderConfig(tower=tower, fusion=fusion, tuning=tuning)
            config = RunConfig(encoder=encoder)
            method = "+".join(encoder.methods)
            if began is not None:
                began(f"{method} on {tower}")
            try:
                yield _row(None, config, known if costs else None)
            except AvtuneError as refused:
                yield Refusal(method, tower, str(refused))


def grid_methods() -> list[tuple[str, str | None]]:
    """Every fusion alone, and every tuning without one; ``cma`` has something to hear for only beside a tuning."""
    fusions: list[tuple[str, str | None]] = [(name, "adapter" if name == "cma" else None) for name in METHODS]
    return [*fusions, *(("frozen", name) for name in TUNINGS)]


def _row(name: str | None, config: RunConfig, known: TowerCosts | None) -> ProfileRow:
    dataset = "ave" if name is None else config.data.name
    labels = tuple(f"label {k}" for k in range(DATASET_LABELS[dataset]))
    words = tuple(f"word {k}" for k in range(DATASET_WORDS.get(dataset, 0)))
    model = AudioVisualModel(config, labels, words=words, device="meta")
    towers = model.network.towers
    return ProfileRow(
        name,
        config,
        count_parameters(model.network),
        _sound_stem(towers["audio"], model.preprocessing.spectrogram_shape) if towers else 0,
        None if known is None else measure_model(model, known),
        None if name is None else published().get(name),
    )


def _sound_stem(tower: Tower, spectrogram: tuple[int, int]) -> int:
    """Weights that the STG-CMA authors' models hold a second time for the sound.

    CLIP: a one-channel convolution and the positions of the spectrogram; Swin: a one-channel patch embedding.
    """
    filters = tower.patch_size**2 * tower.dims[0]
    if tower.prefix_tokens:
        rows, columns = tower.grid(*spectrogram)
        return filters + (rows * columns + tower.prefix_tokens) * tower.dims[0]
    bias_and_norm = 3 * tower.dims[0]
    return filters + bias_and_norm
