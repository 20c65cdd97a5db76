"""What was left of each client's quota after its last request, readable without a lock."""

import os
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

_PLACES: Final = 32_768
_TAG_BYTES: Final = 4

_CONTENT: Final = Struct(f"<{_TAG_BYTES}sI")
"""A tag and a number."""

_PLACE_BYTES: Final = _CONTENT.size


class Place(NamedTuple):
    """Where the number of one key is, and how it is recognized: another key may have the same place."""

    offset: int
    tag: bytes


@lru_cache(maxsize=4096)
def place_of(key: bytes) -> Place:
    """The place of a key."""
    digest = blake2b(key, digest_size=_PLACE_BYTES).digest()
    row = int.from_bytes(digest[_TAG_BYTES:], "little") % _PLACES
    return Place(row * _PLACE_BYTES, digest[:_TAG_BYTES])


class SharedRemaining:
    """One number for each key, in a file of 256 KiB. Only the holder of the counters' lock writes.

    It is read by a system call and not through a memory map: a file that another program has truncated would end the
    process by SIGBUS.
    """

    def __init__(self) -> None:
        self._file = -1

    def open(self, path: Path) -> None:
        """Open the file, or create it.

        Raises:
            OSError: It cannot be created, or there is no space.
        """
        self._file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        # The space is taken now: otherwise a write would fail later, during a request.
        missing = _PLACES * _PLACE_BYTES - os.fstat(self._file).st_size
        if missing > 0:
            os.pwrite(self._file, bytes(missing), _PLACES * _PLACE_BYTES - missing)

    def close(self) -> None:
        """Close the file."""
        if self._file != -1:
            os.close(self._file)
            self._file = -1

    def write(self, place: Place, remaining: int) -> None:
        """Replace the number of a key."""
        os.pwrite(self._file, _CONTENT.pack(place.tag, min(remaining, 0xFFFFFFFF)), place.offset)

    def read(self, place: Place) -> int | None:
        """The number of a key. None if another key has replaced it, or the file is damaged."""
        content = os.pread(self._file, _PLACE_BYTES, place.offset)
        if len(content) != _PLACE_BYTES:
            return None
        tag, number = _CONTENT.unpack(content)
        return number if tag == place.tag else None
