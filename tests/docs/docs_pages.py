"""The pages of the documentation, taken apart for the tests."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "docs/methods").glob("*.md"),
        *(ROOT / "docs/tasks").glob("*.md"),
    ]
)
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)\n(?P<content>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """A fenced block of code: its page, its line there, its language and its text without indentation."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*languages, pages=PAGES):
    found = []
    for page in pages:
        content = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(content):
            if match["language"] in languages:
                indent = len(match["indent"])
                text = "".join(line[indent:] for line in match["content"].splitlines(keepends=True))
                line = content.count("\n", 0, match.start()) + 1
                found.append(Block(page, line, match["language"], text))
    return found


def prose(page):
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))
