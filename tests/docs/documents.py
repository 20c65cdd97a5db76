"""The documents of the project, and their fenced blocks."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.paths import ROOT

COMMANDS = "sh"
"""Commands that a test runs as they are written, block after block, in a copy of the project."""

ANSWERS = frozenset({"json", "http"})
"""The output of the commands in the block before."""

PATCH = "diff"
"""A change that `test_guides.py` makes in a copy of the project."""

LEFT_OUT = {
    "console": "commands that need an image registry, a cluster, or a service of the reader's own",
    "": "a tree of files, or another outline",
    "text": "a tree of files, or another outline",
    "json-lines": "an example of log lines",
    "python": "lines of a file",
    "sql": "SQL statements that are not run",
    "yaml": "lines of a file",
    "mermaid": "a diagram",
}
"""Kinds of blocks that no test runs. Project paths in them must exist."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a document."""

    document: Path
    section: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        """The document and the line."""
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def documents() -> list[Path]:
    """All documents, the README first."""
    root = sorted(ROOT.glob("*.md"), key=lambda path: path.name != "README.md")
    return [*root, *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("deploy/**/*.md"))]


def blocks(document: Path) -> Iterator[Block]:
    """The fenced blocks of a document, in order."""
    text = document.read_text(encoding="utf-8")
    for match in re.finditer(r"^```([\w-]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        above = text[: match.start()]
        section = above.rpartition("\n## ")[2].partition("\n")[0]
        yield Block(document, section, above.count("\n") + 1, match[1], match[2])
