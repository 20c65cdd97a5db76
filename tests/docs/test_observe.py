"""The lists of metrics and log events in the guide agree with the code."""

import ast
import json
import re
import subprocess
import sys

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.paths import ROOT
from tests.processes.server import SAMPLES_APP, Server, eventually

PAGE = (ROOT / "docs" / "operations" / "observe.md").read_text()

RENAMED = {"exc_info": "exception"}
"""Arguments of loggers that have another name in the line."""

IN_EVERY_LINE = {"request_id", "trace_id", "span_id"}

LEVELS = {"debug", "info", "warning", "error", "critical", "exception", "write"}

DECLARED = """
from app.metrics.instruments import Metrics
from app.metrics.master import MasterEvents
for instrument in Metrics().registry._collector_to_names:
    kind, labels = instrument._type, ", ".join(f"`{name}`" for name in instrument._labelnames)
    name = instrument._name + "_total" * (kind == "counter")
    print(f"| `{name}` | {kind} | {labels} | {instrument._documentation} |")
"""


def rows(heading: str) -> list[str]:
    """The rows of the table below a heading."""
    table = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [line for line in table.splitlines() if line.startswith("| `")]


def names(heading: str) -> set[str]:
    """The names in the first column."""
    return {row.split("`")[1] for row in rows(heading)}


def logged() -> dict[str, set[str]]:
    """The events of the code, each with the fields that its calls name.

    An event is an argument of a logger of the form noun_verbed, or a value of the key `event`.
    """
    found: dict[str, set[str]] = {}
    for file in (*ROOT.glob("app/**/*.py"), *ROOT.glob("migrations/**/*.py"), ROOT / "gunicorn.conf.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and node.args:
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if name in LEVELS:
                    fields = {RENAMED.get(keyword.arg, keyword.arg) for keyword in node.keywords if keyword.arg}
                    found.setdefault(text_of(node.args[0]), set()).update(fields)
            elif isinstance(node, ast.Dict):
                pairs = zip(node.keys, node.values, strict=True)
                found |= {text_of(value): set() for key, value in pairs if text_of(key) == "event"}
    return {event: fields for event, fields in found.items() if event.replace("_", "").isalpha()}


def text_of(node: ast.AST | None) -> str:
    """The value of a constant string; empty for other nodes."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def test_the_table_of_metrics_is_that_of_the_code():
    """The table has the name, kind, labels and description of each metric, and no other row."""
    declared = subprocess.run(
        [sys.executable, "-c", DECLARED], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()

    master = (
        "| `worker_events_total` | counter | `event` | Workers started, died or timed out, and reloads, by event. |"
    )
    assert sorted([*declared, master]) == sorted(rows("Metrics"))


def test_the_table_of_events_is_that_of_the_code():
    """The table has each event that the code logs, and no other."""
    assert logged().keys() == names("Log events")


@pytest.mark.parametrize("row", rows("Log events"), ids=lambda row: row.split("`")[1])
def test_an_event_is_listed_with_its_fields(row):
    """The row names every field that a call in the code names, except the ids that all lines of a request have."""
    _, event, _, fields, *_ = row.split("|")

    assert logged()[event.strip(" `")] - IN_EVERY_LINE <= set(re.findall(r"`(\w+)`", fields))


@pytest.fixture(scope="module")
def server():
    """A server without a database, which logs failures."""
    with Server(app=SAMPLES_APP, environment={"WEB_CONCURRENCY": "2", "LOG_LEVEL": "debug"}) as running:
        yield running.serving(workers=2)


def test_a_scrape_has_listed_metrics_only(server):
    """Every metric of a real server is in the table, and more than half of the table is in a scrape."""
    url = f"http://127.0.0.1:{server.port}"
    shown: set[str] = set()

    def look() -> bool:
        httpx.get(f"{url}/samples")
        for family in text_string_to_metric_families(httpx.get(f"{url}/metrics").text):
            shown.add(family.name + "_total" * (family.type == "counter"))
        return "http_requests_total" in shown

    eventually(look, seconds=5, what="requests are counted")
    assert shown <= names("Metrics")
    assert len(shown) > len(names("Metrics")) / 2


def test_a_log_has_listed_events_only(server):
    """Every event that a real server logs itself is in the table."""
    httpx.get(f"http://127.0.0.1:{server.port}/samples")
    logged_events: set[str] = set()

    def look() -> bool:
        lines = [json.loads(line) for line in server.output().splitlines()]
        logged_events.update(line["event"] for line in lines if "logger" not in line)
        return {"request_failed", "request_served", "worker_started"} <= logged_events

    eventually(look, seconds=5, what="the events are logged")
    assert {event for event in logged_events if " " not in event} <= names("Log events")
