"""Cursors: a position in a list, after a row. Opaque to clients.

A cursor contains what its list is sorted by, and is refused under another order.
"""

import base64
from datetime import datetime
from hashlib import blake2s
from typing import Final, Literal

from app.errors import InvalidFieldError
from app.http.etags import EPOCH, MICROSECOND, Versioned, microseconds

IdOrder = Literal["id", "-id"]
Order = Literal["id", "-id", "updated_at"]

_ID_BYTES = 8
_CHECK_BYTES = 4
"""Together with the id these are 12 bytes, which base64 encodes without padding."""

_ID_DIGITS = 19
GREATEST_ID = 2**63 - 1

START = -(2**63)
"""The position before all rows."""

_CHANGE_CHECK_BYTES = 5
"""Together with a time and an id these are 21 bytes."""

_KEYS: Final = {"id": b"items", "-id": b"-id", "updated_at": b"updated"}
"""What the checksum depends on, by the order. The first is also that of the release before."""


LENGTH = 28
"""The greatest number of characters of a cursor."""


def encode(row_id: int, order: IdOrder = "id") -> str:
    """Return the cursor for the position after this row, in a list that is sorted by ids."""
    position = row_id.to_bytes(_ID_BYTES, signed=True)
    return _text(position + _check(position, order, _CHECK_BYTES))


def decode(cursor: str, order: IdOrder = "id") -> int:
    """Return the id of the row that the cursor's position is after.

    Raises:
        InvalidFieldError: This service did not make the cursor, or made it for another order. The checksum
            detects accidental changes, not forgery: a position is not a secret.
    """
    row_id = int.from_bytes(_bytes(cursor)[:_ID_BYTES], signed=True)
    # Compare the text, because the decoder ignores characters outside the alphabet and accepts aliases of others.
    if cursor != encode(row_id, order):
        raise _refusal()
    return row_id


def decode_or_id(cursor: str) -> int:
    """Return the id of the row that the position is after, which a client may also send itself, in decimal digits.

    The two cannot be confused: the cursor of an id that is not negative begins with a letter.

    Raises:
        InvalidFieldError: It is neither.
    """
    if cursor.isascii() and cursor.isdigit() and len(cursor) <= _ID_DIGITS and int(cursor) <= GREATEST_ID:
        return int(cursor)
    try:
        return decode(cursor)
    except InvalidFieldError:
        raise InvalidFieldError("cursor", "Send the `id` of the last line, or the `next_cursor` of a list") from None


def after(row: Versioned, order: Order) -> str:
    """Return the cursor for the position after this row, in a list with this order."""
    return encode_change(row.updated_at, row.id) if order == "updated_at" else encode(row.id, order)


def encode_change(updated_at: datetime, row_id: int) -> str:
    """Return the cursor for the position after this change, in a list that is sorted by changes."""
    position = microseconds(updated_at).to_bytes(_ID_BYTES, signed=True) + row_id.to_bytes(_ID_BYTES, signed=True)
    return _text(position + _check(position, "updated_at", _CHANGE_CHECK_BYTES))


def decode_change(cursor: str) -> tuple[datetime, int]:
    """Return the `updated_at` and the id of the change that the cursor's position is after.

    Raises:
        InvalidFieldError: As `decode` does.
    """
    position = _bytes(cursor)
    try:
        updated_at = EPOCH + int.from_bytes(position[:_ID_BYTES], signed=True) * MICROSECOND
    except OverflowError:
        raise _refusal() from None
    row_id = int.from_bytes(position[_ID_BYTES : 2 * _ID_BYTES], signed=True)
    if cursor != encode_change(updated_at, row_id):
        raise _refusal()
    return updated_at, row_id


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode()


def _bytes(cursor: str) -> bytes:
    """The bytes of a cursor; none if it is not base64."""
    try:
        return base64.urlsafe_b64decode(cursor)
    except ValueError:
        return b""


def _check(position: bytes, order: Order, size: int) -> bytes:
    return blake2s(position, digest_size=size, person=_KEYS[order]).digest()


def _refusal() -> InvalidFieldError:
    return InvalidFieldError(
        "cursor", "Send the `next_cursor` of the previous page, unchanged and with the same `sort`"
    )
