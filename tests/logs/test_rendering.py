import re
from typing import Any

import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from app.logs.rendering import LINE_BYTES, current_request, render_json
from tests.log_lines import Lines
from tests.logs.conftest import Script


def test_a_line_starts_with_event_level_and_timestamp(lines: Lines):
    """Every line is one JSON object whose first keys are `event`, `level` and `timestamp`."""
    structlog.get_logger().info("sample_created", sample_id=7, level_of_stock=None)

    (line,) = lines()
    assert ["event", "level", "timestamp", "sample_id", "level_of_stock"] == list(line)
    assert ["sample_created", "info", 7, None] == [line[k] for k in ("event", "level", "sample_id", "level_of_stock")]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", line["timestamp"])


def test_a_line_has_the_ids_of_its_request(lines: Lines):
    """Inside a request each line has the request id, and the ids of the trace and of the span if there are any."""
    log = structlog.get_logger()
    for request in [("a1", None, None), ("a2", "t2", None), ("a3", "t3", "s3")]:
        token = current_request.set(request)
        log.info("inside")
        current_request.reset(token)
    log.info("outside")

    ids = ("request_id", "trace_id", "span_id")
    assert [("a1", None, None), ("a2", "t2", None), ("a3", "t3", "s3"), (None, None, None)] == [
        tuple(map(line.get, ids)) for line in lines()
    ]


def test_an_exception_is_a_field_of_its_line(lines: Lines):
    """The field contains the traceback with all causes."""
    try:
        try:
            raise KeyError("inner")  # noqa: TRY301
        except KeyError as error:
            raise ValueError("outer") from error
    except ValueError:
        structlog.get_logger().exception("request_crashed")

    (line,) = lines()
    assert "error" == line["level"]
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: outer")
    assert "KeyError: 'inner'" in line["exception"]


def test_a_password_in_an_event_is_not_logged(lines: Lines):
    """Passwords in exceptions, fields and headers are redacted."""
    structlog.get_logger().error(
        "failed", exc_info=OSError("no postgresql://samples:hunter2@db/samples"), url="//a:hunter2@b"
    )
    structlog.get_logger().error("failed", dsn="hunter2", headers={"Cookie": "hunter2"})

    structlog.get_logger().error("failed", cause=OSError("no postgresql://samples:hunter2@db/samples"))

    found = lines()
    assert 3 == len(found)
    assert "hunter2" not in str(found)


def test_a_long_exception_is_shortened_at_its_beginning(lines: Lines):
    """The line has at most LINE_BYTES bytes, and the end of the traceback is kept."""
    structlog.get_logger().error("failed", exc_info=ValueError("x" * 10_000 + " the end"))

    (line,) = lines()
    assert line["truncated"]
    assert line["exception"].endswith("the end")
    assert 3_900 < len(orjson.dumps(line)) <= LINE_BYTES


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5_000) | st.binary() | st.builds(object),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=5,
)


@given(st.text(), st.dictionaries(st.text(), values, max_size=100))
def test_any_event_becomes_one_short_line(event: str, fields: dict[str, Any]):
    """Any event is one JSON object on one line of at most LINE_BYTES bytes."""
    line = render_json(None, "info", {**fields, "event": event})

    assert 1 == line.count(b"\n")
    assert line.endswith(b"\n")
    assert len(line) <= LINE_BYTES
    assert {"event", "level", "timestamp"} <= orjson.loads(line).keys()


@pytest.mark.parametrize("value", ["\ud800", 1 << 70, -(1 << 64), float("nan"), b"\xff", {1: "\ud800"}, ["\udfff"]])
def test_a_value_that_is_not_json_is_written_as_text(lines: Lines, value: object):
    """A value that JSON cannot represent raises nothing, and the line is written."""
    structlog.get_logger().info("value_logged", value=value)

    assert "value_logged" == lines()[0]["event"]


def test_an_event_with_too_many_fields_keeps_its_name(lines: Lines):
    """If shortening texts is not enough, all fields but the first are removed."""
    structlog.get_logger().info("fields_logged", **{f"field_{number}": number for number in range(1_000)})

    (line,) = lines()
    assert ["event", "level", "timestamp", "truncated"] == list(line)


def test_the_console_format_shows_numbers_as_numbers(run_script: Script):
    """An integer, a float and an HTTP status are digits, a boolean is True or False."""
    done = run_script(
        "import structlog\nfrom http import HTTPStatus\n"
        "structlog.get_logger().info('made', status=HTTPStatus.CREATED, seconds=0.25, count=7, done=True)",
        format="console",
    )

    assert re.search(rb"made +count=7 done=True seconds=0\.25 status=201$", done.stdout, re.MULTILINE)


def test_the_console_format_is_plain_text_on_a_pipe(run_script: Script):
    """The line has no colours and no control characters, and the traceback follows it."""
    done = run_script(
        "import structlog\nlog = structlog.get_logger()\nlog.info('sample_created', sample_id=7)\n"
        "try: 1 / 0\nexcept ZeroDivisionError: log.exception('failed', path='/a\\x1b[31m')",
        format="console",
    )

    assert re.search(rb"^\d\d:\d\d:\d\d\.\d{3} \[info +\] sample_created +sample_id=7$", done.stdout, re.MULTILINE)
    assert b"ZeroDivisionError: division by zero\n" in done.stdout
    assert b"\x1b" not in done.stdout
