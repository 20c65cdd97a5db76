"""The project's texts for people, and what stands in their fenced blocks."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.paths import ROOT

COMMANDS = "sh"
"""Commands that a test runs as they stand, block after block, in a copy of the project."""

ANSWERS = frozenset({"json", "http"})
"""What the commands of the block before print."""

LEFT_OUT = {
    "console": "commands that need a container engine with a registry, a cluster, or a service of the reader's own",
    "": "the form of something: a tree of files, or a sketch",
    "text": "the form of something: a tree of files, or a sketch",
    "json-lines": "lines of a log, as an example",
    "python": "lines of a file",
    "sql": "statements, to be read",
    "yaml": "lines of a file",
    "mermaid": "a diagram",
}
"""Blocks that no test runs, and why. Paths that they name must exist all the same."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a document."""

    document: Path
    section: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        """Where it stands."""
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def documents() -> list[Path]:
    """All of them, the README first."""
    root = sorted(ROOT.glob("*.md"), key=lambda path: path.name != "README.md")
    return [*root, *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("deploy/**/*.md"))]


def blocks(document: Path) -> Iterator[Block]:
    """The fenced blocks of a document, in their order."""
    text = document.read_text(encoding="utf-8")
    for match in re.finditer(r"^```([\w-]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        above = text[: match.start()]
        section = above.rpartition("\n## ")[2].partition("\n")[0]
        yield Block(document, section, above.count("\n") + 1, match[1], match[2])
