"""What the documents point at is there."""

import re
from pathlib import Path

import pytest

from app.settings import Settings
from tests.docs.documents import documents
from tests.paths import ROOT

ALL = pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))

GUIDE = [ROOT / "README.md", *sorted(ROOT.glob("docs/operations/*.md"))]

WORDS = {"ADMIN_DATABASE_URL", "BACKUPS", "WRITE_IMAGES"}
"""Variables of the commands, not of the service."""


def anchors(page: Path) -> set[str]:
    """What a link may name within a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@ALL
def test_every_link_leads_somewhere(document):
    """A relative link or picture is a file or a folder of this project, and its anchor a heading."""
    for target in re.findall(r"(?:\]\(|\bsrc(?:set)?=\")([^)\"\s]+)", document.read_text()):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            there = document.parent / path if path else document
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), target


@ALL
def test_every_file_that_is_named_is_there(document):
    """A path in backticks that begins with one of the project's folders exists."""
    for path in re.findall(
        r"`((?:app|benchmarks|deploy|docs|migrations|requirements|tests)/[\w./-]*)`", document.read_text()
    ):
        assert (ROOT / path).exists(), path


def test_the_operations_index_names_every_page():
    """No page of the guide is to be found by chance only."""
    folder = ROOT / "docs" / "operations"
    linked = set(re.findall(r"\]\((\w+\.md)\)", (folder / "README.md").read_text()))

    assert {page.name for page in folder.glob("*.md")} - {"README.md"} == linked


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/decisions/[0-9]*.md")), ids=lambda page: page.stem)
def test_a_decision_says_why(page):
    """Each is numbered as its file is, and has a context, a decision and its consequences."""
    text = page.read_text()

    assert text.startswith(f"# {int(page.stem[:4])}. ")
    for part in ("Context", "Decision", "Consequences"):
        assert f"**{part}.**" in text or f"## {part}" in text, part


@pytest.mark.parametrize("document", GUIDE, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_setting_that_is_named_is_one(document):
    """An environment variable in the guide is a setting, or a variable of its commands."""
    settings = {name.upper() for name in Settings.model_fields} | WORDS
    for name in re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=[^`]*)?`", document.read_text()):
        assert name in settings, name
