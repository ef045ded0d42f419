"""Python code and commands that the documentation shows have to work."""

import argparse
import ast
import fnmatch
import re
import shlex

import numpy as np
import pytest
from docs_pages import PAGES, ROOT, blocks, prose

import avtune
from avtune import cli
from avtune.config import PretrainingRunConfig, RunConfig
from avtune.media import write_video
from avtune.recipes import parse_config, parse_pretraining_config, recipe_names

PYTHON = blocks("python")
COMMAND = re.compile(r"`((?:avtune|make) [^`\n]+)`")


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_block_parses(block):
    # The page on adding a method shows one entry of a dict, as it stands in the file.
    entry = block.text.startswith("    ")
    ast.parse(f"{{\n{block.text}}}" if entry else block.text)
    assert entry == (
        block.page.name == "add_a_method.md" and "Method(" in block.text and "class" not in block.text
    )


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with what the pages speak of: a finished run under two names, and a video."""
    folder = tmp_path_factory.mktemp("pages")
    model = avtune.create_model("nano", labels=["dog", "horn"])
    model.save(folder / "runs/folder_lavish")
    model.save(folder / "try/run")
    frames = [np.full((64, 64, 3), value, np.uint8) for value in range(0, 250, 5)]
    write_video(folder / "my.mp4", frames, 10.0, np.zeros(80000, np.float32))
    return folder


RUNNABLE = [block for block in PYTHON if block.page.name in ("README.md", "python.md")]


@pytest.mark.parametrize("block", RUNNABLE, ids=str)
def test_python_block_runs(block, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    # What stands under `if __name__ == "__main__"` trains for minutes; the examples' tests do that on fewer clips.
    exec(compile(block.text, str(block), "exec"), {"__name__": "page"})


def test_log_mel_has_the_shape_that_the_page_states():
    (block,) = [block for block in RUNNABLE if "# (98, 128)" in block.text]
    names = {}
    setup, _, call = block.text.rstrip().rpartition("\n")
    exec(setup, names)
    assert tuple(eval(call.partition("#")[0], names).shape) == (98, 128)


def _commands():
    found = []
    for block in blocks("console"):
        for line in block.text.splitlines():
            assert line.startswith("$ "), f"{block}: a console block holds commands alone: {line}"
            found.append((str(block), shlex.split(line[2:], comments=True)))
    for page in PAGES:
        found += [(str(page.relative_to(ROOT)), shlex.split(text)) for text in COMMAND.findall(prose(page))]
    return found


COMMANDS = _commands()


@pytest.fixture
def understood(monkeypatch):
    """What the command line makes of words, without doing it."""
    taken = []
    monkeypatch.setattr(cli, "_call", lambda module, function: lambda options: taken.append(options) or 0)

    def parse(words):
        assert cli.main(words) == 0, f"avtune {' '.join(words)}"
        return taken.pop()

    return parse


def _check(options):
    recipe = getattr(options, "recipe", None)
    pretrains = options.command == "pretrain" or (recipe or "").startswith("pretrain/")
    (parse_pretraining_config if pretrains else parse_config)(options.settings)
    names = recipe_names(PretrainingRunConfig if pretrains else RunConfig)
    if recipe is not None and not recipe.isupper():
        if getattr(options, "all", False):
            assert fnmatch.filter(names, recipe), recipe
        else:
            assert recipe in names or recipe.endswith(".yaml"), recipe


def _names():
    subcommands = next(a for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction))
    return set(subcommands.choices)


@pytest.mark.parametrize(("where", "words"), COMMANDS, ids=[f"{w}: {' '.join(c)}" for w, c in COMMANDS])
def test_command_exists_with_its_flags(where, words, understood):
    name = words[0].rpartition("/")[2]
    if name == "avtune" and len(words) == 2:
        # A mention of the command, or one that needs nothing else.
        assert words[1] in _names()
    elif name == "avtune":
        _check(understood(words[1:]))
    elif name == "torchrun":
        at = words.index("-m")
        assert words[at + 1] == "avtune"
        _check(understood(words[at + 2 :]))
    elif name == "make":
        phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert words[1] in phony[1].split()
    else:
        assert name in ("python3", "python"), f"{where}: {name} is neither avtune's nor checked here"
        scripts = [word for word in words if word.endswith(".py")]
        assert all((ROOT / script).is_file() for script in scripts)


def test_every_command_of_the_command_line_is_shown():
    shown = {words[1] for _, words in COMMANDS if words[0] == "avtune" and len(words) > 1}
    assert shown >= _names()
