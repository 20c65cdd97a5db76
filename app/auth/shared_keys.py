"""The last keys of the issuer in a file that workers share, for those that start while the issuer is away."""

import json
import os
import stat
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.auth.fetching import MAX_ANSWER_BYTES
from app.auth.key_set import KeySet
from app.auth.strict_json import parse_object
from app.metrics.directory import KEYS_FILE

MAX_FILE_BYTES: Final = 2 * MAX_ANSWER_BYTES

RENEWED_SECONDS: Final = 300.0
"""Keys that have not changed are written again after this time, so that the file says that they are still published."""

_OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class FetchedBefore:
    """Keys, and when they were fetched."""

    keys: KeySet
    fetched_at: float
    """In Unix time."""
    age_seconds: float
    """By the clock of this machine, which may have been set. Never negative."""


class SharedKeys:
    """The last keys of one issuer. The file is a JSON Web Key Set that also says whose it is, and of when."""

    def __init__(self, folder: Path | None, *, issuer: str, jwks_url: str | None) -> None:
        """Open nothing yet.

        Args:
            folder: The folder that the workers share. Without it there are never keys.
            issuer: AUTH_ISSUER. Keys of another issuer are not used.
            jwks_url: AUTH_JWKS_URL. Keys from another address are not used.
        """
        self._file = folder / KEYS_FILE if folder else None
        self._source = {"issuer": issuer, "jwks_url": jwks_url}

    def read(self) -> FetchedBefore | None:
        """The keys in the file. None if there is no file, or anything is wrong with it."""
        if self._file is None:
            return None
        try:
            document = _read_own(self._file)
            members = parse_object(document)
            fetched_at = float(members["fetched_at"])
            age_seconds = time.time() - fetched_at
            if age_seconds < 0 or any(members[name] != value for name, value in self._source.items()):
                return None
            return FetchedBefore(KeySet.parse(document), fetched_at, age_seconds)
        except Exception:  # noqa: BLE001  # a damaged file must not stop a worker
            return None

    def write(self, keys: KeySet) -> None:
        """Keep these keys, which were fetched just now. If that fails, the file stays as it is."""
        if self._file is None:
            return
        before = self.read()
        if before and before.age_seconds < RENEWED_SECONDS and set(before.keys.keys) == set(keys.keys):
            return
        with suppress(OSError, ValueError, RecursionError):
            entries = [json.loads(key.material) for key in keys.keys]
            document = json.dumps({**self._source, "fetched_at": time.time(), "keys": entries})
            _replace(self._file, document.encode())


def _read_own(file: Path) -> bytes:
    """Return the content of a file of which no other user can be the author.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not a regular file of this user that only this user can write, or it is too long.
    """
    # A named pipe would wait for a writer without O_NONBLOCK.
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as opened:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & _OTHERS_MAY_WRITE:
            raise ValueError("it is not a regular file that only this user can write")
        content = opened.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"it has more than {MAX_FILE_BYTES} bytes")
    return content


def _replace(file: Path, content: bytes) -> None:
    """Write a file that only this user can read. Another process sees the old content or the new one."""
    descriptor, draft = tempfile.mkstemp(prefix=f"{file.name}.", dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(content)
        Path(draft).replace(file)
    except OSError:
        Path(draft).unlink(missing_ok=True)
        raise
