"""Tables, links and facts of the documentation agree with the code and with what was measured."""

import json
import re
import subprocess
import sys
from urllib.parse import urlparse

import pytest
from docs_pages import PAGES, ROOT, prose

import docs_measured as measured
import docs_pretraining as pretraining
import docs_tables as tables
from avtune.config import PretrainingRunConfig
from avtune.datasets import READERS
from avtune.datasets.manifest import PROBLEMS, UNUSABLE
from avtune.fusion import METHODS
from avtune.profile_all import GRID_TOWERS, grid_methods
from avtune.recipes import fields_of, recipe_names


def test_readme_is_what_the_script_writes():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {match[2] for match in tables.MARKED.finditer(text)} == set(tables.README_PARTS)
    assert tables.filled(text) == text, "run: python tools/docs_tables.py"


def test_script_replaces_what_is_stale():
    text = "before\n<!-- begin methods -->\nold\n<!-- end methods -->\nafter\n"
    wanted = tables.filled(text)
    assert "old" not in wanted
    assert wanted.startswith("before\n<!-- begin methods -->\n| method |")
    assert all(f"| `{name}` |" in wanted for name in METHODS)
    assert wanted.endswith("<!-- end methods -->\nafter\n")


def test_results_of_seeds_become_a_table_with_their_mean(tmp_path, monkeypatch):
    floors = {"majority": 0.5, "audio only": 0.6, "video only": 0.55, "shuffled audio": 0.4}
    runs = [
        {"seed": seed, "score": {"value": 0.7 + seed / 10}, "floors": floors, "wall_seconds": 100 + 10 * seed}
        for seed in (1, 0)
    ]
    runs = [{**run, "peak_process_mib": 900 + run["seed"]} for run in runs]
    file = tmp_path / "seeds.json"
    content = {"runs": runs, "command": "python measure.py", "machine": "made up, 2 cores"}
    file.write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.setattr(measured, "SEEDS", file)
    lines = measured.try_results().splitlines()
    assert lines[2] == "| 0 | 70.0 % | 50.0 % | 60.0 % | 55.0 % | 40.0 % | 100 s |"
    assert lines[3].startswith("| 1 | 80.0 %")
    assert lines[4] == "| mean | **75.0 %** | **50.0 %** | **60.0 %** | **55.0 %** | **40.0 %** | 105 s |"
    assert "`python measure.py` (made up, 2 cores, at most 901 MiB of memory in one process)" in lines[6]


def test_seeds_that_were_measured_are_at_least_three():
    if not measured.SEEDS.is_file():
        pytest.skip("avtune try has not been measured over seeds: run benchmarks/experiments/try_seeds.py")
    runs = json.loads(measured.SEEDS.read_text(encoding="utf-8"))["runs"]
    assert len({run["seed"] for run in runs}) >= 3


def test_every_setting_is_described():
    rows = [line.split(" | ") for line in tables.settings().splitlines()[2:]]
    assert [row[0].strip("|` ") for row in rows] == [f"--{name}" for name in fields_of()]
    assert all(len(row[2].strip(" |")) > 10 for row in rows)


def test_every_setting_of_pretraining_is_described():
    rows = [line.split(" | ") for line in tables.PAGES["pretraining_settings"]().splitlines()[2:]]
    own = [name for name in fields_of(PretrainingRunConfig()) if name.startswith(("pretraining.", "train."))]
    assert [row[0].strip("|` ") for row in rows] == [f"--{name}" for name in own]
    assert all(len(row[2].strip(" |")) > 10 for row in rows)


def test_the_hours_of_pretraining_follow_from_the_measured_speed():
    lines = [
        line.strip("|").split("|")
        for line in pretraining.pretraining_cost().splitlines()[2:]
        if line.startswith("|")
    ]
    assert {line[0].strip() for line in lines} == set(pretraining.PRETRAINED.values())
    for line in lines:
        speed, hours = float(line[2]), float(line[4])
        assert hours == pytest.approx(1_772_023 * 20 / 16 / 3600 / speed, rel=0.05)


def test_every_command_has_its_help():
    pages = tables.help_pages()
    for name in ("try", "train", "pretrain", "eval", "predict", "profile", "check", "list", "data bandstand"):
        assert f"## avtune {name}\n" in pages
        assert f"usage: avtune {name} " in pages


def test_every_recipe_has_a_recorded_profile():
    recorded = {row["recipe"]: row for row in measured._profiles() if row["recipe"]}
    # Their numbers are held to the code in test_profile.py.
    assert sorted(recorded) == recipe_names(), (
        "run: avtune profile --all --json benchmarks/results/profile_all.json"
    )


def test_every_method_and_tuning_is_in_the_grid_on_every_tower():
    lines = [line for line in measured.grid().splitlines() if line.startswith("| `")]
    named = {line.split("`")[1] for line in lines}
    assert named == {"+".join(filter(None, pair)) for pair in grid_methods()}
    assert all(line.count(" M, ") + line.count("refused") == len(GRID_TOWERS) for line in lines)


def test_every_recipe_is_under_the_ruler():
    assert all(f"`{name}`" in measured.profiles() for name in recipe_names())


def test_problems_of_check_are_those_of_the_page():
    text = (ROOT / "docs/own_clips.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", text, re.MULTILINE)
    assert [name for name, _ in rows] == sorted(PROBLEMS, key=[name for name, _ in rows].index)
    assert {name for name, use in rows if use == "left out"} == UNUSABLE


def test_readers_are_those_of_the_page():
    text = (ROOT / "docs/datasets.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(READERS)


def _anchors(page):
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    targets = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose(page))
    for target in targets:
        if urlparse(target).scheme:
            assert target.startswith("https://"), target
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in _anchors(file), f"{page.name} links to {target}"


LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|link)\b[^>]*?\b(?:src|href)=["']((?:https?:)?//[^"']+)"""
)
STYLE = re.compile(r"""(?:url\(|@import\s+)["']?((?:https?:)?//[^"')]+)""")


def test_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-b",
        "html",
        "-d",
        str(tmp_path / "trees"),
    ]
    built = subprocess.run(
        [*command, str(ROOT / "docs"), str(tmp_path / "html")], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    pages = list((tmp_path / "html").rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not LOADED.findall(text), page
        assert not STYLE.findall(text), page
    for style in (tmp_path / "html").rglob("*.css"):
        assert not STYLE.findall(style.read_text(encoding="utf-8")), style


@pytest.mark.parametrize(
    "loads",
    [
        '<script src="https://x.org/a.js">',
        "<link rel='stylesheet' href='//x.org/a.css'>",
        '<img alt="" src="http://x/y">',
    ],
)
def test_what_loads_from_elsewhere_is_found(loads):
    assert LOADED.findall(loads)
    assert STYLE.findall("@import 'https://x.org/a.css'")
    assert not LOADED.findall('<a href="https://x.org">')
