import string
from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidFieldError
from app.http import cursors
from tests.answers import refused_fields

IDS = st.integers(1, 2**63 - 1)
ALPHABET = string.ascii_letters + string.digits + string.punctuation + " \n\0é"


@given(IDS)
def test_a_cursor_leads_back_to_its_item(item_id):
    """Every id has its cursor, which needs no quoting in a URL."""
    cursor = cursors.encode(item_id)

    assert item_id == cursors.decode(cursor)
    assert set(cursor) <= set(string.ascii_letters + string.digits + "-_")


@given(IDS, IDS)
def test_cursors_differ(one, other):
    """Two positions have two cursors."""
    assert (one == other) == (cursors.encode(one) == cursors.encode(other))


@pytest.mark.parametrize("item_id", [1, 62, 63, 1000, 2**62, 2**63 - 1])
def test_any_other_character_spoils_a_cursor(item_id):
    """A cursor in which one character is another, is missing, or is too many is refused."""
    cursor = cursors.encode(item_id)
    altered = {
        cursor[:place] + character + cursor[end:]
        for place in range(len(cursor) + 1)
        for end in (place, place + 1)
        for character in ["", *ALPHABET]
    } - {cursor}

    for other in altered:
        with pytest.raises(InvalidFieldError):
            cursors.decode(other)


@given(st.text() | st.binary(min_size=12, max_size=12).map(lambda raw: urlsafe_b64encode(raw).decode()))
def test_no_other_text_is_a_cursor(text):
    """Whatever was not made here is refused by its own error."""
    with pytest.raises(InvalidFieldError):
        cursors.decode(text)


def test_aliases_of_a_cursor_are_refused():
    """`+` and `/` of the common alphabet do not stand for `-` and `_`."""
    swap = str.maketrans("-_", "+/")
    aliases = {cursors.encode(n).translate(swap) for n in range(1, 200)} - {cursors.encode(n) for n in range(1, 200)}

    assert len(aliases) > 10
    for alias in aliases:
        with pytest.raises(InvalidFieldError):
            cursors.decode(alias)


async def test_an_altered_cursor_is_named(client):
    """A list from an altered cursor is 422, about `cursor`."""
    cursor = cursors.encode(7)

    assert 200 == (await client.get("/items", params={"cursor": cursor})).status_code
    assert {"cursor"} == refused_fields(await client.get("/items", params={"cursor": cursor.swapcase()}))
    assert {"cursor"} == refused_fields(await client.get("/items", params={"cursor": cursor + "="}))
