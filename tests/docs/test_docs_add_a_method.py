"""Following the page "add a method" to the letter gives a method that trains."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from docs_pages import ROOT, blocks

from avtune.datasets.bandstand import render_bandstand

PAGE = ROOT / "docs/methods/add_a_method.md"


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """A copy of the package after all that the page asks for."""
    folder = tmp_path_factory.mktemp("add_a_method")
    package = folder / "src/avtune"
    shutil.copytree(ROOT / "src/avtune", package, ignore=shutil.ignore_patterns("__pycache__"))
    method, line, entry, test = (block.text for block in blocks("python", pages=[PAGE]))
    (recipe,) = (block.text for block in blocks("yaml", pages=[PAGE]))
    named = re.findall(r"`((?:src|tests)/[\w/.]+)`", PAGE.read_text(encoding="utf-8"))
    files = dict(zip(named, (method, None, recipe, test), strict=True))
    for name, text in files.items():
        if text is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    table = folder / named[1]
    content = table.read_text(encoding="utf-8")
    first = "from avtune.fusion.base import"
    opening = "METHODS: dict[str, Method] = {\n"
    assert content.count(first) == content.count(opening) == 1
    table.write_text(content.replace(first, line + first).replace(opening, opening + entry), encoding="utf-8")
    return folder


# Several commands in one process: importing PyTorch takes longer than most of them.
COMMANDS = "import json, sys; from avtune.cli import main; sys.exit(max(map(main, json.loads(sys.argv[1]))))"


def _run(followed, *words):
    environment = {
        **os.environ,
        "PYTHONPATH": str(followed / "src"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }
    return subprocess.run(
        [sys.executable, *words], cwd=followed, env=environment, capture_output=True, text=True
    )


def test_the_pages_test_passes(followed):
    result = _run(
        followed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/fusion/test_mean_exchange.py"
    )
    assert "2 passed" in result.stdout, result.stdout + result.stderr


def test_the_method_is_listed_and_its_recipe_trains(followed):
    render_bandstand(followed / "clips", 10, workers=1)
    quick = ["--data.workers", "0", "--train.epochs", "1", "--train.floors", "false", "--data.root", "clips"]
    train = ["train", "bandstand/mean_exchange_nano", "--out", "run", *quick]
    result = _run(followed, "-c", COMMANDS, json.dumps([["list", "methods"], train]))
    assert result.returncode == 0, result.stderr
    assert "mean_exchange" in result.stdout
    assert "each stream hears the average token of the other" in result.stdout
    assert (followed / "run/report.html").is_file()
    assert "width: 32" in (followed / "run/config.yaml").read_text(encoding="utf-8")


def test_the_page_is_checked_as_the_package_is(followed):
    """Its file passes the same style and type checks as the package's own."""
    file = followed / "src/avtune/fusion/mean_exchange.py"
    settings = ["--config", str(ROOT / "pyproject.toml")]
    for check in (["ruff", "check", *settings], ["ruff", "format", "--check", *settings]):
        result = _run(followed, "-m", *check, str(file))
        assert result.returncode == 0, result.stdout
