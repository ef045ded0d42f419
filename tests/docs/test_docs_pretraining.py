"""Tables about pretraining and fine-tuning say what the committed files hold."""

import json

import pytest

import docs_pretraining as pretraining

PLACE = {"command": "python measure.py", "machine": "made up, 2 cores", "torch": "2.0"}


def search(recall: float) -> dict[str, float]:
    return {"recall_at_1": recall, "recall_at_5": recall * 2, "recall_at_10": recall * 4, "median_rank": 7.0}


def test_searches_become_a_table_with_their_means_and_spread(tmp_path, monkeypatch):
    runs = []
    for seed, recall in enumerate((0.1, 0.2)):
        both = {"audio_to_video": search(recall), "video_to_audio": search(recall / 2)}
        before = {"audio_to_video": search(0.01), "video_to_audio": search(0.0)}
        runs.append({
            "objective": "avsiam", "seed": seed,
            "details": {**both, "same_class": {"chance": 0.02}, "before pretraining": before},
            "floors": {"chance": 0.002}, "clips": {"train": 30}, "scored_clips": 500,
        })  # fmt: skip
    file = tmp_path / "searches.json"
    monkeypatch.setattr(pretraining, "SEARCHES", file)
    assert (
        pretraining.pretraining_scores()
        == "Not measured yet: `benchmarks/results/searches.json` is absent.\n"
    )
    file.write_text(json.dumps({**PLACE, "runs": runs}), encoding="utf-8")
    lines = pretraining.pretraining_scores().splitlines()
    assert lines[2] == "| AVSiam | sound to frames | 15.0 ± 7.1 | 30.0 ± 14.1 | 60.0 ± 28.3 | 7 |"
    assert lines[3].startswith("| AVSiam | frames to sound | 7.5 ±")
    assert lines[4].startswith("| AVSiam before pretraining | sound to frames | 1.0 ± 0.0 |")
    assert lines[-1].startswith(
        "Among 500 test clips; chance is an R@1 of 0.20 %, and who knows every clip's class and nothing else finds "
        "2.00 %. 30 clips to learn from."
    )
    assert lines[-1].endswith("seeds 0, 1. Measured by `python measure.py` (made up, 2 cores, PyTorch 2.0).")


def test_both_starts_of_fine_tuning_stand_in_one_table(tmp_path, monkeypatch):
    runs = [
        {
            "start": start, "seed": seed, "score": {"value": value + seed / 10}, "floors": {"audio only": 0.5},
            "clips": {"train": 40}, "scored_clips": 50,
        }
        for seed in (0, 1)
        for start, value in (("pretrained", 0.7), ("not pretrained", 0.6))
    ]  # fmt: skip
    file = tmp_path / "tuned.json"
    monkeypatch.setattr(pretraining, "FINE_TUNED", file)
    assert pretraining.finetuning_scores().startswith("Not measured yet")
    file.write_text(json.dumps({**PLACE, "runs": runs}), encoding="utf-8")
    lines = pretraining.finetuning_scores().splitlines()
    assert lines[0] == "| begins | accuracy, % | audio only |"
    assert lines[2] == "| pretrained | 75.0 ± 7.1 | 50.0 ± 0.0 |"
    assert lines[3] == "| not pretrained | 65.0 ± 7.1 | 50.0 ± 0.0 |"
    assert "40 labelled clips to learn from, 50 to score." in lines[-1]


def test_every_device_that_was_measured_has_its_row_for_each_batch():
    measured = [json.loads(file.read_text()) for file in pretraining.SPEEDS if file.is_file()]
    if not measured:
        pytest.skip("no throughput was measured: run benchmarks/pretraining_throughput.py")
    rows = [line for line in pretraining.packing().splitlines() if line.startswith("| ")][2:]
    assert len(rows) == sum(len(one["batches"]) for one in measured)
    assert {row.split(" | ")[0].strip("| ") for row in rows} == {one["device"] for one in measured}
