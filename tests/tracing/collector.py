"""A receiver of OTLP over HTTP, on the official messages, that answers as a test tells it."""

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

KINDS = {2: "server", 3: "client"}
STATUSES = {0: "unset", 2: "error"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A span as it was received."""

    name: str
    kind: str
    status: str
    trace_id: str
    span_id: str
    parent_id: str
    seconds: float
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    resource: dict[str, Any]


class Collector(ThreadingHTTPServer):
    """Receives spans on the loopback interface."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        """What it answers. The spans of another answer are not kept."""
        self.answer_bytes = 0
        """How long the body of its answer is besides the message."""
        self.written_bytes = 0
        """How much of that its client has taken."""
        self.answers = threading.Event()
        """Cleared: it takes requests, and does not answer them."""
        self.answers.set()
        self.trickles = False
        """Whether its answer is a head that never ends, a byte every 20 ms."""
        self.requests: list[tuple[str, dict[str, str]]] = []
        """The path and the headers of each request."""
        self.spans: list[Span] = []

    @property
    def url(self) -> str:
        """What OTEL_EXPORTER_OTLP_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def of_kind(self, kind: str) -> list[Span]:
        """The spans of this kind that were received."""
        return [span for span in self.spans if span.kind == kind]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Collector

    def do_POST(self) -> None:
        """Keep the spans of a request, and answer it."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        self.server.answers.wait()
        if self.server.status == 200:
            self.server.spans += _spans(gzip.decompress(body) if self.headers["Content-Encoding"] else body)
        if self.server.trickles:
            self._trickle()
            return
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer) + self.server.answer_bytes))
        self.end_headers()
        self.wfile.write(answer)
        with suppress(OSError):  # the client has closed the connection
            while self.server.written_bytes < self.server.answer_bytes:
                self.server.written_bytes += self.wfile.write(bytes(100_000))

    def _trickle(self) -> None:
        self.close_connection = True
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")
        with suppress(OSError):  # the client has closed the connection
            while self.server.trickles:
                self.wfile.write(b"x")
                time.sleep(0.02)

    def log_message(self, *_: object) -> None:
        """Write nothing."""


def _spans(body: bytes) -> Iterator[Span]:
    message = ExportTraceServiceRequest.FromString(body)
    for of_resource in message.resource_spans:
        resource = _values(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield Span(
                    name=span.name,
                    kind=KINDS.get(span.kind, str(span.kind)),
                    status=STATUSES.get(span.status.code, str(span.status.code)) + span.status.message,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                    attributes=_values(span.attributes),
                    events=[(event.name, _values(event.attributes)) for event in span.events],
                    resource=resource,
                )


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair) for pair in pairs}


def _value(pair: KeyValue) -> Any:
    return getattr(pair.value, pair.value.WhichOneof("value") or "string_value")


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector."""
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield collector
        finally:
            collector.answers.set()
            collector.trickles = False
            collector.shutdown()
            thread.join(5)
