"""The traces of a create and of an export, as a collector receives them and as the guide shows them."""

import pytest

from tests.application import opened
from tests.paths import ROOT
from tests.tracing.collector import Collector, Span

pytestmark = pytest.mark.anyio

PAGE = (ROOT / "docs" / "operations" / "tracing.md").read_text()

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def described(collector: Collector) -> str:
    """The spans of a trace with all of their content, the request first. What differs each time is an ellipsis."""
    spans = sorted(collector.spans, key=lambda span: span.kind != "server")
    return "\n".join(line for span in spans for line in lines_of(span))


def lines_of(span: Span):
    """A line with the name, and one for each attribute and event."""
    yield f"{span.name} ({span.kind})"
    for name, value in sorted(span.attributes.items()):
        yield f"    {name}: {value}"
    for name, attributes in span.events:
        yield f"    event {name}: {', '.join(f'{key} …' for key in attributes)}"


async def test_a_create(traced_settings, collector):
    """One request, one statement."""
    async with opened(traced_settings) as client:
        answer = await client.post("/items", json={"name": "Kettle"}, headers=caller())

    assert 201 == answer.status_code
    assert {TRACE} == {span.trace_id for span in collector.spans}
    assert shown_below("A create") == described(collector)


async def test_an_export(traced_settings, collector):
    """The span ends with the stream. Each statement of the stream is a span below it."""
    async with opened(traced_settings) as client:
        await client.post("/items/batch", json={"items": [{"name": f"Kettle {n}"} for n in range(3)]})
        collector.spans.clear()
        answer = await client.get("/items/export?q=Kettle", headers=caller())

    assert 3 == answer.text.count("\n")
    collector.spans = [span for span in collector.spans if span.trace_id == TRACE]
    assert shown_below("An export") == described(collector)


def caller() -> dict[str, str]:
    """The headers of a caller that traces."""
    return {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}


def shown_below(title: str) -> str:
    """The first listing below this title of the guide."""
    return PAGE.split(f"**{title}**")[1].split("```text\n")[1].split("\n```")[0]
