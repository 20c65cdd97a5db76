import json

import pytest

from tests.cluster import execute
from tests.processes.history import History, create
from tests.processes.load import Answer, Report, Request, RequestResult

ROW = "INSERT INTO samples (name, amount) VALUES ('created-7', 7)"


@pytest.fixture
def history(database_url: str) -> History:
    """An empty history. The next sample gets the id `FIRST`."""
    return History(database_url)


FIRST = 10_001


def report(*outcomes: tuple[Request, int, dict[str, object]]) -> Report:
    """Requests, each with the status and the body of its answer. The status 0 means no answer."""
    results = []
    for number, (request, status, body) in enumerate(outcomes):
        answer = Answer(status=status, headers={}, body=json.dumps(body).encode()) if status else None
        results.append(
            RequestResult(number=number, request=request, kept=True, started=0, seconds=0, answer=answer, failure=None)
        )
    return Report(results)


def created(sample_id: int) -> dict[str, object]:
    """The answer to the creation of sample 7."""
    return {"id": sample_id, "name": "created-7", "description": None, "amount": 7}


PLAIN, KEYED = create(7), create(7, key="key-7")
OVERLOADED, UNAVAILABLE = {"code": "overloaded"}, {"code": "database_unavailable"}


@pytest.mark.parametrize(
    ("rows", "outcomes", "counts"),
    [
        (1, [(PLAIN, 201, created(FIRST))], {"acknowledged": 1}),
        (1, [(KEYED, 0, {}), (KEYED, 201, created(FIRST))], {"acknowledged": 1, "unknown": 1}),
        (2, [(PLAIN, 503, UNAVAILABLE), (PLAIN, 201, created(FIRST + 1))], {"acknowledged": 1, "unknown": 1}),
        (1, [(PLAIN, 504, {"code": "statement_timeout"})], {"unknown": 1, "stored": 1}),
        (0, [(PLAIN, 503, OVERLOADED), (PLAIN, 0, {})], {"refused": 1, "unknown": 1}),
    ],
)
def test_outcomes_are_counted(history, database_url, rows, outcomes, counts):
    """Each acknowledged creation has a row. Where an outcome is unknown and there is no key, one more is allowed."""
    for _ in range(rows):
        execute(database_url, ROW)

    assert counts == {kind: count for kind, count in history.check(report(*outcomes)).items() if count}


@pytest.mark.parametrize(
    ("rows", "outcomes", "message"),
    [
        (0, [(PLAIN, 201, created(FIRST))], "acknowledged and not stored"),
        (1, [(PLAIN, 201, created(1))], "stored with other values"),
        (1, [(PLAIN, 201, created(FIRST) | {"amount": 8})], "acknowledged with other values"),
        (1, [(PLAIN, 503, OVERLOADED)], "1 rows, at most 0"),
        (1, [(PLAIN, 429, {})], "1 rows, at most 0"),
        (2, [(PLAIN, 201, created(FIRST))], "2 rows, at most 1"),
        (2, [(KEYED, 503, UNAVAILABLE), (KEYED, 201, created(FIRST))], "2 rows, at most 1"),
        (1, [(PLAIN, 201, created(FIRST)), (PLAIN, 201, created(FIRST))], "one row for several"),
        (1, [(create(7, description="whole"), 0, {})], "an incomplete row"),
        (1, [], "no request wrote"),
    ],
)
def test_a_wrong_row_is_found(history, database_url, rows, outcomes, message):
    """A write that was lost, changed, done twice, or done although it was refused, fails the check."""
    for _ in range(rows):
        execute(database_url, ROW)

    with pytest.raises(AssertionError, match=message):
        history.check(report(*outcomes))
