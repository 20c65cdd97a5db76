"""Cursors: a position in a list, after a row. Opaque to clients."""

import base64
from hashlib import blake2s

from app.errors import InvalidFieldError

_ID_BYTES = 8
_CHECK_BYTES = 4
"""Together with the id these are 12 bytes, which base64 encodes without padding."""

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


def _check(position: bytes) -> bytes:
    return blake2s(position, digest_size=_CHECK_BYTES, person=b"items").digest()
