"""CoPL's page shows what its script counted, and that is what is counted now."""

import importlib.util
import json
import sys
from dataclasses import fields

import pytest
from docs_pages import ROOT

from avtune.fusion.copl import CoplConfig

PAGE = (ROOT / "docs/methods/copl.md").read_text(encoding="utf-8")


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def shown(module):
    found = module.MARKED.search(PAGE)
    assert found is not None
    return found[0].split("-->\n", 1)[1].rsplit("<!-- end", 1)[0]


@pytest.fixture(scope="module")
def counts():
    return script("copl_counts")


@pytest.fixture(scope="module")
def measured(counts):
    return [counts.measure(row) for row in counts.ROWS]


def test_counts_are_current_and_shown(counts, measured):
    recorded = json.loads(counts.RESULT.read_text(encoding="utf-8"))["rows"]
    assert recorded == measured, "run: python benchmarks/copl_counts.py"
    assert shown(counts) == counts.table(recorded)


def test_counts_are_those_of_the_formulas(measured):
    swin, htsat, paired = 18_048, 4_416, 8_832  # Widths summed over the blocks.
    first, *_, last = measured
    assert first["parts"]["specific"] == 30 * 2 * swin
    assert first["parts"]["banks"] == 2 * 10 * 20 * 1536
    latents, mapping = 2 * 2 * 1536, 2 * 8 * 1536 + 8 + 1536
    assert first["parts"]["coupling"] == 2 * (latents + mapping)
    assert last["parts"]["specific"] == 40 * (paired + htsat)
    assert last["parts"]["banks"] == 2 * 10 * 30 * (1536 + 768)


@pytest.mark.parametrize("name", [field.name for field in fields(CoplConfig)])
def test_every_option_is_on_the_page(name):
    assert f"`{name}`" in PAGE or f"options.{name} " in PAGE
