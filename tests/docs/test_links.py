"""The links, paths and settings in the documents exist."""

import re
from pathlib import Path

import pytest

from app.settings import Settings
from tests.docs.documents import documents
from tests.paths import ROOT

ALL = pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))

GUIDE = [ROOT / "README.md", *sorted(ROOT.glob("docs/operations/*.md"))]

WORDS = {
    "ADMIN_DATABASE_URL",
    "RESTORED_DATABASE_URL",
    "BACKUPS",
    "DNS_NAMESPACE",
    "MONITORING_NAMESPACE",
    "SECRETS",
    "WRITE_IMAGES",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
}
"""Variables of the commands, of the manifests, of the HTTP client and of OpenSSL, not settings of the service."""


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@ALL
def test_every_link_has_a_target(document):
    """A relative link or image is a file or a folder of this project, and its anchor a heading."""
    for target in re.findall(r"(?:\]\(|\bsrc(?:set)?=\")([^)\"\s]+)", document.read_text()):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            there = document.parent / path if path else document
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), target


@ALL
def test_every_path_exists(document):
    """A path in backticks that begins with one of the project's folders exists."""
    for path in re.findall(
        r"`((?:app|benchmarks|deploy|docs|migrations|requirements|tests)/[\w./-]*)`", document.read_text()
    ):
        assert (ROOT / path).exists(), path


def test_the_guide_lists_every_page():
    """The index of the guide links to each of its pages."""
    folder = ROOT / "docs" / "operations"
    linked = set(re.findall(r"\]\((\w+\.md)\)", (folder / "README.md").read_text()))

    assert {page.name for page in folder.glob("*.md")} - {"README.md"} == linked


def test_the_index_lists_every_decision_by_its_title():
    """The index of the decisions links to each page, with the title of the page."""
    folder = ROOT / "docs" / "decisions"
    index = re.findall(r"^- \[(.+)\]\((.+)\)$", (folder / "README.md").read_text(), re.MULTILINE)

    pages = sorted(folder.glob("[0-9]*.md"))
    assert [(page.read_text().splitlines()[0].removeprefix("# "), page.name) for page in pages] == index


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/decisions/[0-9]*.md")), ids=lambda page: page.stem)
def test_a_decision_is_complete(page):
    """The title has the number of the file, and there are a context, a decision and consequences."""
    text = page.read_text()

    assert text.startswith(f"# {int(page.stem[:4])}. ")
    for part in ("Context", "Decision", "Consequences"):
        assert f"**{part}.**" in text or f"## {part}" in text, part


@pytest.mark.parametrize("document", GUIDE, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_variable_is_a_setting(document):
    """An environment variable in the guide is a setting, or a variable of its commands."""
    settings = {name.upper() for name in Settings.model_fields} | WORDS
    for name in re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=[^`]*)?`", document.read_text()):
        assert name in settings, name
