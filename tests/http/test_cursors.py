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
def test_a_cursor_decodes_to_its_id(row_id):
    """Every id has a cursor, which decodes to that id and needs no quoting in a URL."""
    cursor = cursors.encode(row_id)

    assert row_id == cursors.decode(cursor)
    assert set(cursor) <= set(string.ascii_letters + string.digits + "-_")


@given(IDS | st.just(0))
def test_an_id_and_its_cursor_are_the_same_position(row_id):
    """Where an id is accepted as well, neither of the two is taken for the other."""
    assert row_id == cursors.decode_or_id(str(row_id)) == cursors.decode_or_id(cursors.encode(row_id))
    assert not cursors.encode(row_id)[0].isdigit()


@given(IDS, IDS)
def test_different_ids_have_different_cursors(one, other):
    """Two cursors are equal only if their ids are."""
    assert (one == other) == (cursors.encode(one) == cursors.encode(other))


@pytest.mark.parametrize("row_id", [1, 62, 63, 1000, 2**62, 2**63 - 1])
def test_an_altered_cursor_is_refused(row_id):
    """A cursor with one character changed, removed or added is refused."""
    cursor = cursors.encode(row_id)
    altered = {
        cursor[:start] + character + cursor[end:]
        for start in range(len(cursor) + 1)
        for end in (start, start + 1)
        for character in ["", *ALPHABET]
    } - {cursor}

    for other in altered:
        with pytest.raises(InvalidFieldError):
            cursors.decode(other)


@given(st.text() | st.binary(min_size=12, max_size=12).map(lambda raw: urlsafe_b64encode(raw).decode()))
def test_a_text_that_is_not_a_cursor_is_refused(text):
    """Text that `encode` did not make is refused with `InvalidFieldError`."""
    with pytest.raises(InvalidFieldError):
        cursors.decode(text)


def test_aliases_of_a_cursor_are_refused():
    """A cursor with `+` and `/` in place of `-` and `_` is refused."""
    swap = str.maketrans("-_", "+/")
    aliases = {cursors.encode(n).translate(swap) for n in range(1, 200)} - {cursors.encode(n) for n in range(1, 200)}

    assert len(aliases) > 10
    for alias in aliases:
        with pytest.raises(InvalidFieldError):
            cursors.decode(alias)


async def test_the_response_to_an_altered_cursor_names_the_field(client):
    """A list with an altered cursor is 422 and names `cursor`."""
    cursor = cursors.encode(7)

    assert 200 == (await client.get("/samples", params={"cursor": cursor})).status_code
    assert {"cursor"} == refused_fields(await client.get("/samples", params={"cursor": cursor.swapcase()}))
    assert {"cursor"} == refused_fields(await client.get("/samples", params={"cursor": cursor + "="}))
