"""Which modules import each other."""

import ast
from graphlib import TopologicalSorter

import grimp
import pytest

from tests.paths import ROOT

FILES = [file for folder in ("app", "migrations", "benchmarks") for file in (ROOT / folder).rglob("*.py")]


@pytest.mark.parametrize("package", ["app", "benchmarks"])
def test_no_modules_import_each_other_in_a_circle(package):
    """The graph of imports has an order; an import that only a type checker reads counts too."""
    graph = grimp.build_graph(package, cache_dir=None)

    TopologicalSorter({module: graph.find_modules_directly_imported_by(module) for module in graph.modules}).prepare()


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_import_is_hidden_from_the_running_program(file):
    """No module imports under `if TYPE_CHECKING`: that would hide a circular import."""
    names = {getattr(node, "id", getattr(node, "attr", None)) for node in ast.walk(ast.parse(file.read_text()))}

    assert "TYPE_CHECKING" not in names
