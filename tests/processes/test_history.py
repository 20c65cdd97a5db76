import json

import pytest

from tests.cluster import execute
from tests.processes.history import History, create
from tests.processes.load import Answer, Exchange, Report, Request

ITEM = "INSERT INTO items (name, price) VALUES ('created-7', 7)"


@pytest.fixture
def history(database_url: str) -> History:
    """What a service was asked; the next item has the id that `FIRST` is."""
    return History(database_url)


FIRST = 10_001


def report(*ends: tuple[Request, int, dict[str, object]]) -> Report:
    """Requests, each with the status of its answer and what is in it; the status 0 stands for no answer."""
    exchanges = []
    for number, (request, status, body) in enumerate(ends):
        answer = Answer(status=status, headers={}, body=json.dumps(body).encode()) if status else None
        exchanges.append(
            Exchange(number=number, request=request, kept=True, started=0, seconds=0, answer=answer, failure=None)
        )
    return Report(exchanges)


def told(item_id: int) -> dict[str, object]:
    """The answer to the creation of item 7."""
    return {"id": item_id, "name": "created-7", "description": None, "price": 7}


PLAIN, KEYED = create(7), create(7, key="key-7")
OVERLOADED, UNAVAILABLE = {"code": "overloaded"}, {"code": "database_unavailable"}


@pytest.mark.parametrize(
    ("rows", "ends", "counts"),
    [
        (1, [(PLAIN, 201, told(FIRST))], {"acknowledged": 1}),
        (1, [(KEYED, 0, {}), (KEYED, 201, told(FIRST))], {"acknowledged": 1, "unknown": 1}),
        (2, [(PLAIN, 503, UNAVAILABLE), (PLAIN, 201, told(FIRST + 1))], {"acknowledged": 1, "unknown": 1}),
        (1, [(PLAIN, 504, {"code": "statement_timeout"})], {"unknown": 1, "stored": 1}),
        (0, [(PLAIN, 503, OVERLOADED), (PLAIN, 0, {})], {"refused": 1, "unknown": 1}),
    ],
)
def test_what_may_be_is_counted(history, database_url, rows, ends, counts):
    """A row for each acknowledged creation; where an outcome is unknown and there is no key, one more."""
    for _ in range(rows):
        execute(database_url, ITEM)

    assert counts == {kind: count for kind, count in history.check(report(*ends)).items() if count}


@pytest.mark.parametrize(
    ("rows", "ends", "found"),
    [
        (0, [(PLAIN, 201, told(FIRST))], "acknowledged and lost"),
        (1, [(PLAIN, 201, told(1))], "acknowledged and not stored"),
        (1, [(PLAIN, 201, told(FIRST) | {"price": 8})], "acknowledged as something else"),
        (1, [(PLAIN, 503, OVERLOADED)], "1 rows, and at most 0"),
        (1, [(PLAIN, 429, {})], "1 rows, and at most 0"),
        (2, [(PLAIN, 201, told(FIRST))], "2 rows, and at most 1"),
        (2, [(KEYED, 503, UNAVAILABLE), (KEYED, 201, told(FIRST))], "2 rows, and at most 1"),
        (1, [(PLAIN, 201, told(FIRST)), (PLAIN, 201, told(FIRST))], "one row for several"),
        (1, [(create(7, description="whole"), 0, {})], "half a row"),
        (1, [], "nobody asked for"),
    ],
)
def test_what_must_not_be_is_found(history, database_url, rows, ends, found):
    """A write that was lost, changed, done twice, or done though it was refused."""
    for _ in range(rows):
        execute(database_url, ITEM)

    with pytest.raises(AssertionError, match=found):
        history.check(report(*ends))
