import re

import pytest

from scripts import templates
from scripts.marking import mark_files, mark_path, mark_python, mark_text
from scripts.names import Name
from scripts.rendering import render
from tests.paths import ROOT

ITEM = Name("item", "items")


def test_the_templates_with_the_first_name_are_the_files():
    """The name of the items in the templates gives their files, except for the prefix of their keys."""
    for path, template in mark_files(ROOT).items():
        rendered = render(template, ITEM).replace('KEY_PREFIX = "items "', 'KEY_PREFIX = ""')
        assert (ROOT / render(path, ITEM)).read_text("utf-8") == rendered


def test_no_template_names_the_items():
    """Only the method of dictionaries is left."""
    for template in templates.files().values():
        assert "item" not in template.replace(".items()", "").lower()


@pytest.mark.parametrize("folder", ["app", "benchmarks", "migrations", "scripts", "tests"])
def test_no_comment_for_a_tool_names_the_items(folder):
    """A copy has another name in its place, so that mypy and ruff would not know the code of the rule."""
    for path in (ROOT / folder).rglob("*.py"):
        assert not re.search(r"#.*(?:ignore\[|noqa:)[^#\n]*\bitems?\b", path.read_text("utf-8")), path


@pytest.mark.parametrize(
    ("source", "template"),
    [
        ("items = {}.items()\n", "@variables@ = {}.items()\n"),
        ("page.items\n", "page.@words@\n"),
        ("Item(item_id=item.id)\n", "@Class@(@word@_id=@variable@.id)\n"),
        ("ItemRow\n", "@Camel@Row\n"),
        ('x = "/items"\n', 'x = "/@path@"\n'),
        ('x = f"/items/{item.id} of an item"\n', 'x = f"/@path@/{@variable@.id} of @a@ @text@"\n'),
        ('x = "SELECT FROM items WHERE items.id = 1"\n', 'x = "SELECT FROM @table@ WHERE @table@.id = 1"\n'),
        ('x = "ck_items_name"\n', 'x = "ck_@table@_name"\n'),
        ('x = "items:read items:write"\n', 'x = "@words@:read @words@:write"\n'),
        ('x = {"items": []}\n', 'x = {"@words@": []}\n'),
        ("# An item, or two items\n", "# @A@ @text@, or two @texts@\n"),
        ("def test_an_item_is_read(): ...\n", "def test_@a@_@word@_is_read(): ...\n"),
    ],
)
def test_each_place_gets_the_form_that_it_needs(source, template):
    """Names, paths, tables, members of JSON and prose are told apart."""
    assert template == mark_python(source)


def test_texts_that_are_not_python_have_their_forms():
    """Prose, paths and code in a document."""
    assert "@A@ @text@ at `/@path@`; `@words@` is a list" == mark_text("An item at `/items`; `items` is a list")


def test_a_path_has_the_name_of_the_module():
    """A module that is named by the resource alone has the name of its variable."""
    assert "app/crud/@variable@.py" == mark_path("app/crud/item.py")
    assert "tests/crud/test_@word@_page.py" == mark_path("tests/crud/test_item_page.py")
