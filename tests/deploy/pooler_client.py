"""One process of the service behind a pooler, without its HTTP: it reads or deletes samples, many at a time.

Arguments: the URL; the value of DATABASE_POOLER; `checked`, or `unchecked` to leave out the check of what
the URL leads to; `get` or `delete`; the first and the last id. Its last line has the ids by outcome, in JSON.
"""

import asyncio
import json
import sys
from collections import defaultdict
from importlib import import_module
from typing import Any

from app.database import Database
from app.errors import RequestError
from tests.databases import connected
from tests.sample import crud

AT_ONCE = 12


async def run(database: Database, operation: str, first: int, last: int) -> dict[str, list[int]]:
    """The ids by outcome: `ok`, the code of an error, or the name of a defect."""
    outcomes = defaultdict[str, list[int]](list)
    left = iter(range(first, last + 1))

    async def work() -> None:
        for sample_id in left:
            try:
                if operation == "get":
                    sample = await crud.get(database, sample_id)
                else:
                    sample = await crud.delete(database, sample_id)
                outcome = "ok" if sample.id == sample_id else "another sample"
            except RequestError as error:
                outcome = error.code
            except Exception as error:  # noqa: BLE001  # any defect is an outcome
                outcome = type(error).__qualname__
            outcomes[outcome].append(sample_id)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return outcomes


async def main(url: str, value: str, check: str, operation: str, *ids: str) -> None:
    """Connect as the service does, run, and print."""
    if check == "unchecked":

        async def accept(*_: Any, **__: Any) -> None: ...

        import_module("app.database.connection").check_peer = accept  # type: ignore[attr-defined]
    async with connected(
        url,
        connections=6,
        wait_seconds=10,
        statement_seconds=5,
        through_pgbouncer=value != "none",
        prepared_statements=value != "pgbouncer",
    ) as database:
        sys.stdout.write("\n" + json.dumps(await run(database, operation, *map(int, ids))))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
