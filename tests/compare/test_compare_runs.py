"""A comparison end to end: real clips, runs that go on, the command."""

import json
from pathlib import Path

import numpy as np
import pytest

from avtune.cli import main
from avtune.compare import (
    CompareObserver,
    ComparisonError,
    finished_costs,
    finished_results,
    measure_costs,
    read_comparison,
    run_comparison,
)
from avtune.compare import cost as costing
from avtune.compare import running as comparing
from avtune.media import write_video

FILE = """
settings:
  input: {segments: 2}
  encoder: {tower: nano, pretrained: false}
  head: {hidden: 8}
  train: {epochs: 1, batch_size: 4}
  data: {name: folder, validation_share: 0.25, test_share: 0.25, workers: 0}
seeds: [0, 1]
learning_rates: [0.01, 0.001]
reference: head alone
variants:
  head alone: {encoder: {fusion: frozen}}
  lavish: {encoder: {fusion: lavish}}
"""


class Watching(CompareObserver):
    def __init__(self) -> None:
        self.begun: list[tuple[str, int, float]] = []
        self.ended: list[str] = []
        self.messages: list[str] = []

    def running(self, variant, seed, rate, done, runs):
        assert done < runs
        self.begun.append((variant, seed, rate))

    def measuring(self, variant, done, variants):
        assert done < variants

    def ran(self, result):
        self.ended.append(result.variant)

    def message(self, text):
        self.messages.append(text)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("comparison")
    rng = np.random.default_rng(0)
    for label in ("bell", "horn"):
        for number in range(4):
            path = root / "clips" / label / f"{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            frames = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
            write_video(path, frames, 2.0, rng.normal(0, 0.1, 32000).astype(np.float32))
    (root / "small.yaml").write_text(FILE)
    return root


@pytest.fixture
def comparison(place):
    return read_comparison(str(place / "small.yaml"), [f"--data.root={place / 'clips'}"])


def test_runs_are_chosen_on_validation_kept_and_never_run_again(place, comparison, monkeypatch):
    folder, observer = place / "runs", Watching()
    only = run_comparison(comparison, folder, observer, only=["lavish"])
    assert {result.variant for result in only} == {"lavish"}
    assert finished_results(comparison, folder)[0] == only
    results = run_comparison(comparison, folder, observer)
    assert [(r.variant, r.seed) for r in results] == [
        ("head alone", 0), ("head alone", 1), ("lavish", 0), ("lavish", 1)
    ]  # fmt: skip
    found, searches = finished_results(comparison, folder)
    assert found == results
    for variant, tried in searches.items():
        assert set(tried) == {0.01, 0.001}
        chosen = {result.learning_rate for result in results if result.variant == variant}
        assert len(chosen) == 1
        assert tried[chosen.pop()] == max(tried.values())
    lavish = next(result for result in results if result.variant == "lavish")
    alone = next(result for result in results if result.variant == "head alone")
    assert lavish.trainable > alone.trainable == alone.head
    assert 0 <= lavish.test <= 1
    assert not list(folder.rglob("state"))

    def refuse(*_: object) -> None:
        raise AssertionError("a finished run was run again")

    monkeypatch.setattr(comparing, "_train", refuse)
    monkeypatch.setattr(comparing, "read_collection", refuse)
    assert run_comparison(comparison, folder) == results


def test_what_a_variant_costs_is_measured_once_and_alone(place, comparison, monkeypatch):
    folder = place / "runs"
    assert finished_costs(comparison, folder) == {}
    costs = measure_costs(comparison, folder, Watching())
    assert set(costs) == {"head alone", "lavish"}
    assert costs["lavish"].saved_mib > costs["head alone"].saved_mib == 0
    assert all(cost.seconds_per_step > 0 for cost in costs.values())
    # What the updates trained is thrown away: the runs of before are all that is there.
    assert len(finished_results(comparison, folder)[0]) == 4
    (folder / "lavish" / "cost.json").unlink()
    measured = []

    def measure(config, clips):
        measured.append(config.encoder.fusion)
        return costs["lavish"]

    monkeypatch.setattr(costing, "_measure", measure)
    assert measure_costs(comparison, folder) == costs == finished_costs(comparison, folder)
    assert measured == ["lavish"]


def test_an_unfinished_comparison_tells_what_is_settled(place, comparison):
    folder = place / "runs"
    assert (folder / "lavish").is_dir(), "the test before this one runs the comparison"
    (some,) = (folder / "head_alone" / "lr_0.01" / "seed_0").glob("result.json")
    kept = some.read_bytes()
    some.unlink()
    assert {result.variant for result in finished_results(comparison, folder)[0]} == {"lavish"}
    some.write_bytes(kept)
    assert len(finished_results(comparison, folder)[0]) == 4


def test_a_folder_of_other_runs_is_refused(place, comparison):
    other = read_comparison(
        str(place / "small.yaml"), [f"--data.root={place / 'clips'}", "--train.batch_size=2"]
    )
    with pytest.raises(ComparisonError, match=r"train.batch_size 4, now it is 2; give another --out"):
        run_comparison(other, place / "runs")


def test_the_command_writes_table_plot_and_numbers(place, capsys):
    words = [
        "compare",
        str(place / "small.yaml"),
        "--out",
        str(place / "runs"),
        "--data.root",
        str(place / "clips"),
    ]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "head alone" in told
    content = json.loads((place / "runs" / "comparison.json").read_text())
    assert {row["variant"] for row in content["rows"]} == {"head alone", "lavish"}
    assert content["reference"] == "head alone"
    assert content["seeds"] == [0, 1]
    assert all(row["cost"]["seconds_per_step"] > 0 for row in content["rows"])
    assert str(place) not in json.dumps(content)
    assert (place / "runs" / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert "lavish" in (place / "runs" / "comparison.md").read_text()


def test_the_command_wants_one_kind_of_comparison(capsys):
    assert main(["compare"]) == 1
    assert main(["compare", "bandstand_nano", "--methods", "lavish"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert "not both" in told[0]
    assert told[0] == told[1]


def test_a_mistake_in_any_variant_shows_before_the_first_run(tmp_path, capsys):
    words = ["compare", "--methods", "lavish", "lavsh", "--data.root", str(tmp_path / "nowhere")]
    assert main([*words, "--out", str(tmp_path / "runs")]) == 1
    assert (
        capsys.readouterr().err.splitlines()[-1] == "avtune: unknown method 'lavsh'; did you mean 'lavish'?"
    )
    assert not (tmp_path / "runs").exists()
