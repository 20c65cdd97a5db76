import math
from decimal import Decimal
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.dataclasses.item import Item, ItemData
from app.schemas.item import ItemCreate, ItemInList, ItemList, ItemRead, ItemReplace, ItemUpdate

WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2003\u2028\u2029\u202f\u205f\u3000"
VISIBLE = {"Lu", "Ll", "Nd", "Po", "Sc"}
"""Categories of which all characters can be seen."""

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
NAMES = TEXTS.map(lambda text: text.strip(WHITE_SPACE + "".join(map(chr, range(0x2000, 0x200B))))).filter(
    lambda name: len(name) <= 255 and any(category(char) in VISIBLE for char in name)
)
CENTS = st.integers(0, 999_999_999_999)
PRICES = CENTS.map(lambda cents: float(Decimal(cents) / 100))
BODIES = st.fixed_dictionaries(
    {"name": NAMES},
    optional={"description": st.none() | TEXTS.map(str.strip), "price": st.none() | PRICES, "is_active": st.booleans()},
)
SPACE = st.text(st.sampled_from(WHITE_SPACE), max_size=5)


def errors(model, body):
    """Return the fields that are refused."""
    with pytest.raises(ValidationError) as raised:
        model.model_validate(body)
    return {error["loc"][0] for error in raised.value.errors()}


@given(BODIES)
def test_a_valid_body_is_accepted_unchanged(body):
    """Fields keep their values. Absent fields get their defaults, and are absent from the changes of an update."""
    expected = {"description": None, "price": None, "is_active": True} | body

    assert (
        ItemData(**expected) == ItemCreate.model_validate(body).to_data() == ItemReplace.model_validate(body).to_data()
    )
    assert expected == ItemCreate.model_validate(body).to_data().to_dict()
    assert body == ItemUpdate.model_validate(body).to_changes()


@given(NAMES, SPACE, SPACE)
def test_white_space_around_a_name_is_removed(name, before, after):
    """A name with white space around it equals the name without."""
    assert name == ItemCreate.model_validate({"name": before + name + after}).name


@given(SPACE)
def test_a_name_of_white_space_is_refused(space):
    """A name needs a character that is not white space."""
    assert {"name"} == errors(ItemCreate, {"name": space})


@given(TEXTS, TEXTS)
def test_nul_is_refused_at_every_position(before, after):
    """A text with NUL is refused, because PostgreSQL cannot store it."""
    text = f"a{before}\0{after}a"

    assert {"name", "description"} == errors(
        ItemCreate, {"name": text[-255:] if "\0" in text[-255:] else "\0", "description": text}
    )


@given(CENTS)
def test_every_number_of_cents_is_a_price(cents):
    """All prices with two decimals are accepted unchanged, and differ from their neighbours."""
    price = float(Decimal(cents) / 100)

    assert price == ItemCreate.model_validate({"name": "n", "price": price}).price
    assert cents == round(Decimal(repr(price)) * 100)


@given(st.floats() | st.integers().map(float))
def test_a_price_is_a_number_of_cents(number):
    """A float is a price if it is finite, in bounds, and the nearest float to a number of cents."""
    is_price = math.isfinite(number) and 0 <= number <= 9_999_999_999.99 and float(f"{number:.2f}") == number

    if is_price:
        assert number == ItemCreate.model_validate({"name": "n", "price": number}).price
    else:
        assert {"price"} == errors(ItemCreate, {"name": "n", "price": number})


@given(st.dictionaries(st.sampled_from(["name", "is_active"]), st.none(), min_size=1))
def test_null_is_refused_for_name_and_is_active(body):
    """Null is a value for `description` and `price` only."""
    for model in (ItemCreate, ItemReplace, ItemUpdate):
        assert set(body) == errors(model, {"name": "n"} | body)


@given(st.dictionaries(TEXTS.filter(lambda name: name not in ItemData.__slots__), TEXTS))
def test_unknown_fields_are_ignored(body):
    """Unknown fields are dropped, and are not changes of an update."""
    assert {} == ItemUpdate.model_validate(body).to_changes()
    assert ItemData(name="n") == ItemCreate.model_validate(body | {"name": "n"}).to_data()


def test_the_models_skip_needless_validation():
    """Assignments and defaults are not validated, texts are stripped, unknown fields ignored."""
    for model in (ItemCreate, ItemReplace, ItemUpdate):
        config = model.model_config
        assert (False, False, True, "ignore") == (
            config["validate_assignment"], config["validate_default"], config["str_strip_whitespace"], config["extra"],
        )  # fmt: skip


def test_documented_bodies_have_the_stored_fields():
    """The documented item has the fields of the stored one, in the same order."""
    assert list(Item.__slots__) == list(ItemRead.model_fields)
    assert [*Item.__slots__, "etag"] == list(ItemInList.model_fields)
    assert ["items", "page", "per_page", "total", "total_is_exact", "pages", "next_cursor"] == list(
        ItemList.model_fields
    )
