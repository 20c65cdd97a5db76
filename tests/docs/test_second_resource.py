"""The README's walk through the layers makes a resource that works."""

import pytest

from tests.docs.documents import COMMANDS, blocks
from tests.docs.shell import reader
from tests.paths import ROOT

WALK = [block for block in blocks(ROOT / "README.md") if (block.section, block.kind) == ("Add a resource", COMMANDS)]


@pytest.fixture(scope="module")
def extended():
    """A copy of the project in which the walk has been followed."""
    with reader({}) as shell:
        for block in WALK:
            shell.run(block)
        yield shell


def test_the_walk_goes_through_every_layer(extended):
    """Each file about items in the layers has got its counterpart."""
    app = extended.folder / "app"
    layers = ("dataclasses", "models", "schemas", "crud", "routers")

    made = {str(file.relative_to(app)) for layer in layers for file in (app / layer).glob("part*.py")}
    first = {str(file.relative_to(app)) for layer in layers for file in (app / layer).glob("item*.py")}
    assert {name.replace("item", "part") for name in first} <= made
    assert len(WALK) > len(layers)


def test_the_new_modules_keep_the_layers_and_the_style(extended):
    """The import contract holds, and nothing in the new files is to be mended."""
    made = "app migrations tests/*/test_part.py"

    extended.execute("lint-imports --no-cache --no-logo", name="layers")
    extended.execute(f"ruff check --no-cache {made} && ruff format --no-cache --check {made}", name="style")


def test_the_new_resource_keeps_the_contract(extended):
    """Its own tests pass, and so do the guard and those of the items beside it."""
    guard = "tests/test_guard.py::test_every_route_has_every_control"
    files = "tests/crud/test_part.py tests/routers/test_part.py tests/crud/test_item.py"

    printed = extended.execute(f"python -m pytest -q -p no:cacheprovider {files} {guard}", name="tests")

    assert " passed" in printed
    assert "skipped" not in printed
