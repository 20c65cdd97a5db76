"""The documentation's site."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.documents import documents
from tests.paths import ROOT

ASSET = re.compile(r'<(?:script|img|source|link)\b[^>]*?\b(?:src|href)="([^"]+)"')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with each warning as an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", "docs", folder],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_in_the_site(site):
    """Each document in docs/ is a page."""
    written = {page.relative_to(site).with_suffix(".md") for page in site.rglob("*.html")}

    assert {page.relative_to(ROOT / "docs") for page in documents() if page.is_relative_to(ROOT / "docs")} <= written


def test_the_site_loads_nothing_from_other_hosts(site):
    """Scripts, styles and pictures are files of the site, so it can be read without a network."""
    assets = [
        (page, asset)
        for page in site.rglob("*.html")
        for asset in ASSET.findall(page.read_text(encoding="utf-8"))
        if not asset.startswith(("#", "data:"))
    ]

    assert len(assets) > 100
    for page, asset in assets:
        assert (page.parent / asset.partition("?")[0]).resolve().exists(), f"{page}: {asset}"


def test_the_search_finds_a_word_without_a_server(site):
    """The index of the search is a file of the site and knows the pages by their words."""
    index = json.loads((site / "searchindex.js").read_text(encoding="utf-8").removeprefix("Search.setIndex(")[:-1])

    assert "operations/backup" in index["docnames"]
    assert "pg_basebackup" in index["terms"]
