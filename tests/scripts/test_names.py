import pytest

from scripts.names import Name, UnusableNameError, plural_of


@pytest.mark.parametrize(
    ("singular", "plural"),
    [
        ("order", "orders"),
        ("category", "categories"),
        ("day", "days"),
        ("class", "classes"),
        ("box", "boxes"),
        ("branch", "branches"),
        ("purchase_order", "purchase_orders"),
    ],
)
def test_a_plural_is_regular_unless_it_is_given(singular, plural):
    """The ending follows the last letters; a given plural is used as it is."""
    assert plural == plural_of(singular) == Name.parse(singular).plural
    assert "people" == Name.parse("person", "people").plural


@pytest.mark.parametrize(
    ("singular", "article"),
    [
        ("order", "an"),
        ("category", "a"),
        ("hour", "an"),
        ("user", "a"),
        ("unit", "a"),
        ("import", "an"),
        ("uncle", "an"),
    ],
)
def test_the_article_follows_the_sound(singular, article):
    """`an` stands before a vowel that is spoken."""
    assert article == Name.parse(singular).forms()["a"]


@pytest.mark.parametrize("word", ["class", "import", "lambda", "type", "format", "page"])
def test_a_word_with_another_meaning_in_python_gets_an_underscore(word):
    """Only the variable and the module differ: in URLs, JSON and texts the name is as it was given."""
    forms = Name(word, f"{word}s", frozenset({"page"})).forms()

    assert f"{word}_" == forms["variable"]
    assert [word, f"{word}s", f"{word}s"] == [forms[form] for form in ("word", "words", "path")]


def test_a_class_does_not_replace_another_one():
    """A class that would have the name of another one is a record."""
    assert "TableRecord" == Name("table", "tables", frozenset({"Table"})).forms()["Class"]
    assert "NoneRecord" == Name("none", "nones").forms()["Class"]
    assert "Order" == Name("order", "orders").forms()["Class"]


def test_a_table_is_not_named_like_a_word_of_sql():
    """The table of a resource whose plural is reserved has another name; the path and JSON do not."""
    forms = Name.parse("reference").forms()

    assert ("reference_rows", "references", "references") == (forms["table"], forms["path"], forms["words"])
    assert "orders" == Name.parse("order").forms()["table"]


def test_a_name_of_two_words_has_each_form():
    """Words are separated as each place does it."""
    forms = Name.parse("purchase-order").forms()

    assert {
        "variable": "purchase_order",
        "path": "purchase-orders",
        "Camel": "PurchaseOrder",
        "text": "purchase order",
        "Text": "Purchase order",
        "WORD": "PURCHASE_ORDER",
    }.items() <= forms.items()


def test_a_plural_that_equals_the_singular_makes_two_variables():
    """One and many have different variables."""
    forms = Name.parse("series", "series").forms()

    assert ("series", "series_list", "series") == (forms["variable"], forms["variables"], forms["words"])


@pytest.mark.parametrize("name", ["", "Order", "1st", "a b", "a--b", "ordér", "../x", "a" * 31, "order;", "_a"])
def test_a_malformed_name_is_refused(name):
    """The message names it and says what to write."""
    with pytest.raises(UnusableNameError, match="write"):
        Name.parse(name)


def test_a_plural_that_is_a_word_of_python_is_refused():
    """It would be the name of a field."""
    with pytest.raises(UnusableNameError, match="another"):
        Name.parse("pas", "pass")
