"""Cursors: a position in a list, after a row. Opaque to clients."""

import base64
from hashlib import blake2s

from app.errors import InvalidFieldError

_ID_BYTES = 8
_CHECK_BYTES = 4
"""Together with the id these are 12 bytes, which base64 encodes without padding."""

_ID_DIGITS = 19
_GREATEST_ID = 2**63 - 1

START = -(2**63)
"""The position before all rows."""

LENGTH = 16
"""The number of characters of a cursor."""


def encode(row_id: int) -> str:
    """Return the cursor for the position after this row."""
    position = row_id.to_bytes(_ID_BYTES, signed=True)
    return base64.urlsafe_b64encode(position + _check(position)).decode()


def decode(cursor: str) -> int:
    """Return the id of the row that the cursor's position is after.

    Raises:
        InvalidFieldError: This service did not make the cursor. The checksum detects
            accidental changes, not forgery: a position is not a secret.
    """
    try:
        row_id = int.from_bytes(base64.urlsafe_b64decode(cursor)[:_ID_BYTES], signed=True)
    except ValueError:
        row_id = 0
    # Compare the text, because the decoder ignores characters outside the alphabet and accepts aliases of others.
    if cursor != encode(row_id):
        raise InvalidFieldError("cursor", "Send the `next_cursor` of the previous page, unchanged")
    return row_id


def decode_or_id(cursor: str) -> int:
    """Return the id of the row that the position is after, which a client may also send itself, in decimal digits.

    The two cannot be confused: the cursor of an id that is not negative begins with a letter.

    Raises:
        InvalidFieldError: It is neither.
    """
    if cursor.isascii() and cursor.isdigit() and len(cursor) <= _ID_DIGITS and int(cursor) <= _GREATEST_ID:
        return int(cursor)
    try:
        return decode(cursor)
    except InvalidFieldError:
        raise InvalidFieldError("cursor", "Send the `id` of the last line, or the `next_cursor` of a list") from None


def _check(position: bytes) -> bytes:
    return blake2s(position, digest_size=_CHECK_BYTES, person=b"items").digest()
