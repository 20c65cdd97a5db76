"""Cursors: the position after an item, opaque to clients."""

import base64
from hashlib import blake2s

from app.errors import InvalidFieldError

_ID_BYTES = 8
_CHECK_BYTES = 4
"""With those of the id they are twelve, which base64 writes without padding."""


def encode(item_id: int) -> str:
    """The position after this item."""
    position = item_id.to_bytes(_ID_BYTES, signed=True)
    return base64.urlsafe_b64encode(position + _check(position)).decode()


def decode(cursor: str) -> int:
    """The id of the item that the position is after.

    Raises:
        InvalidFieldError: The cursor is not one of ours. It is guarded against
            accidents, not against clients who forge one: a position is no secret.
    """
    try:
        item_id = int.from_bytes(base64.urlsafe_b64decode(cursor)[:_ID_BYTES], signed=True)
    except ValueError:
        item_id = 0
    # Compared as text: the decoder overlooks characters beside the alphabet, and takes some for others.
    if cursor != encode(item_id):
        raise InvalidFieldError("cursor", "Take `next_cursor` of the page before, unchanged")
    return item_id


def _check(position: bytes) -> bytes:
    return blake2s(position, digest_size=_CHECK_BYTES, person=b"items").digest()
