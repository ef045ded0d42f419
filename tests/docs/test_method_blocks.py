"""What was measured at one block of each method: complete, current, and shown on the pages."""

import importlib.util
import json
import sys

import pytest
from docs_pages import ROOT

import docs_measured as measured
from avtune.fusion import METHODS
from avtune.tuning import TUNINGS
from docs_tables import PAGES


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


benchmark = load(ROOT / "benchmarks/method_blocks.py")
RECORDED = json.loads(benchmark.RESULT.read_text(encoding="utf-8"))
ROWS = {(row["method"], row["block"]): row for row in RECORDED["rows"]}


def test_every_method_and_tuning_is_measured():
    settings = [method.settings for method in benchmark.METHODS.values()]
    assert {each["fusion"] for each in settings} == set(METHODS)
    assert {each["tuning"] for each in settings if "tuning" in each} == set(TUNINGS)
    assert list(ROWS) == [
        (name, block) for name, method in benchmark.METHODS.items() for block in method.blocks
    ], "run: python benchmarks/method_blocks.py"
    assert all(row["settings"] == benchmark.METHODS[name].settings for (name, _), row in ROWS.items())


def test_only_those_that_carry_tokens_are_refused():
    assert {key for key, row in ROWS.items() if "refused" in row} == {
        ("mbt", "Swin-V2-B stage 1"),
        ("ma_avt", "Swin-V2-B stage 1"),
    }


@pytest.mark.parametrize(
    "name", ["lavish", "dg_sct", "mbt", "copl with interaction", "ma_avt", "cma+adapter"]
)
def test_forms_agree_and_cost_what_is_recorded(name):
    steps, known, _ = benchmark.forms(name, "ViT-B")
    # Refuses forms whose outputs differ by more than 1e-4.
    counted = benchmark.count(steps, known)
    recorded = ROWS[name, "ViT-B"]["forms"]
    for form, row in counted.items():
        # Which kernels a release of PyTorch has decides about a few per cent.
        assert row["saved_mib"] == pytest.approx(recorded[form]["saved_mib"], rel=0.05), form
        assert row["gmacs"] == pytest.approx(recorded[form]["gmacs"], rel=0.01), form


def test_stg_cma_needs_half_of_what_its_authors_code_keeps():
    block = "Swin-B stage 1"
    assert ROWS["stg_cma", block]["forms"]["avtune"]["saved_mib"] <= (
        RECORDED["authors_form_saved_mib"]["stg_cma"][block] / 2
    )


@pytest.mark.parametrize(
    "key", [key for key in ROWS if key[0].startswith("copl") or key[0] == "prompts"], ids=str
)
def test_prompts_as_keys_and_values_cost_less_than_carried_ones(key):
    forms = ROWS[key]["forms"]
    for what in ("gmacs", "saved_mib"):
        assert forms["avtune"][what] < forms["straightforward"][what]


def test_pages_show_all_rows():
    titles = {name: title for page in measured.MEASURED_BLOCKS.values() for name, title in page.items()}
    assert list(titles) == list(benchmark.METHODS)
    ruler = (ROOT / "docs/ruler.md").read_text(encoding="utf-8")
    assert "{include} api/tables/blocks.inc" in ruler
    lines = measured.blocks().splitlines()
    for name, block in ROWS:
        assert sum(line.startswith(f"| {titles[name]} | {block} |") for line in lines) == 1
    for page, names in measured.MEASURED_BLOCKS.items():
        text = (ROOT / f"docs/methods/{page}.md").read_text(encoding="utf-8")
        assert f"{{include}} ../api/tables/blocks_{page}.inc" in text
        shown = PAGES[f"blocks_{page}"]()
        for (name, block), row in ROWS.items():
            for form, value in row.get("forms", {}).items() if name in names else ():
                start = f"| {titles[name]}, {block} | {measured.BLOCK_FORMS[form]} |"
                assert (
                    f"{start} {value['gmacs']} G | {value['saved_mib']} MiB | {value['cpu_seconds']} s |"
                    in shown
                )
