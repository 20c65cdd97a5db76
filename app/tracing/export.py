"""Sends spans to the collector: in a thread, from a bounded queue, with every span that is lost counted."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from functools import partial
from http import HTTPStatus
from io import BytesIO
from socket import SHUT_RDWR
from time import monotonic
from typing import Any, Final
from weakref import WeakSet

import requests
import structlog
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._shared_internal import BatchProcessor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from requests.adapters import HTTPAdapter

from app.settings import Settings
from app.settings.tracing import pairs
from app.tracing.observer import SpanObserver

FLUSH_SECONDS: Final = 2.0
"""How long a worker that stops waits for the collector. `graceful_timeout` in gunicorn.conf.py leaves three seconds."""

ANSWER_BYTES: Final = 65_536
"""How much is read of the collector's answer. If there is more, the connection is closed."""

REPORT_SECONDS: Final = 60.0
"""The least time between two log lines about spans that were dropped."""

_CAUSES: Final = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
"""The logger at which the exporter says why it has failed."""

log = structlog.get_logger(__name__)


@asynccontextmanager
async def exporting(provider: TracerProvider, settings: Settings, observer: SpanObserver) -> AsyncIterator[None]:
    """Send the provider's spans until the block ends, and for FLUSH_SECONDS more those that wait then."""
    losses = _Losses(observer)
    exporter = _CountedExporter(_exporter(settings, losses), observer, losses)
    processor = _CountedProcessor(exporter, settings, losses)
    provider.add_span_processor(processor)
    logging.getLogger(_CAUSES).addFilter(losses.remember_cause)
    try:
        yield
    finally:
        await _flush(processor)
        if left := processor.waiting + exporter.sending:
            losses.dropped("shutdown", left)
        logging.getLogger(_CAUSES).removeFilter(losses.remember_cause)


def _exporter(settings: Settings, losses: "_Losses") -> OTLPSpanExporter:
    headers = settings.otel_exporter_otlp_headers
    certificate = settings.otel_exporter_otlp_certificate
    return OTLPSpanExporter(
        endpoint=f"{settings.otel_exporter_otlp_endpoint}/v1/traces",
        headers=pairs(headers.get_secret_value()) if headers else None,
        timeout=settings.otel_exporter_otlp_timeout / 1000,
        compression=Compression(settings.otel_exporter_otlp_compression),
        certificate_file=str(certificate) if certificate else None,
        session=_CollectorSession(losses),
    )


class _CollectorSession(requests.Session):
    """Reads a bounded part of an answer, of which only the status counts, and takes a redirection for a failure."""

    def __init__(self, losses: "_Losses") -> None:
        super().__init__()
        self._losses = losses
        self._adapter = _EndingAdapter()
        for scheme in ("http://", "https://"):
            self.mount(scheme, self._adapter)

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send a request. Its `timeout` is for all of it: that of the library begins again with each byte that arrives.

        Raises:
            requests.RequestException: No answer came in time, or it leads to another address.
        """
        self._losses.cause = self._losses.cause or "the collector has not answered yet"
        deadline = monotonic() + options["timeout"]
        timer = threading.Timer(options["timeout"], self._adapter.end)
        timer.daemon = True
        timer.start()
        try:
            response = self._answer(request, options, deadline)
        except Exception as error:
            self._losses.cause = str(error)
            raise
        finally:
            timer.cancel()
        self._losses.cause = "" if response.ok else f"the collector answers {response.status_code}"
        return response

    def _answer(self, request: requests.PreparedRequest, options: dict[str, Any], deadline: float) -> requests.Response:
        response = super().send(request, **options | {"stream": True})
        if HTTPStatus.MULTIPLE_CHOICES <= response.status_code < HTTPStatus.BAD_REQUEST:
            response.close()
            raise requests.exceptions.InvalidURL(f"the collector answers {response.status_code}, a redirection")
        left = ANSWER_BYTES
        while left > 0 and monotonic() < deadline and (part := response.raw.read1(left)):
            left -= len(part)
        if left <= 0:
            response.close()
        if monotonic() >= deadline:  # a head that the adapter has ended can look like a whole one
            response.close()
            raise requests.exceptions.ReadTimeout("the collector's answer did not end in time")
        response.raw = BytesIO()  # nothing reads the rest
        return response


class _EndingAdapter(HTTPAdapter):
    """Knows its connections, so that another thread can end those that wait for the collector."""

    def __init__(self) -> None:
        super().__init__()
        self._connections: WeakSet[Any] = WeakSet()
        self._changing = threading.Lock()

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        """The library's pool of connections, which makes them here."""
        pool: Any = super().get_connection_with_tls_context(*args, **options)
        if "ConnectionCls" not in vars(pool):
            pool.ConnectionCls = partial(self._connection, pool.ConnectionCls)
        return pool

    def _connection(self, make: Callable[..., Any], *args: Any, **options: Any) -> Any:
        connection = make(*args, **options)
        with self._changing:
            self._connections.add(connection)
        return connection

    def end(self) -> None:
        """End all connections: who reads an answer gets an error now."""
        with self._changing:
            connections = list(self._connections)
        for connection in connections:
            with suppress(AttributeError, OSError):  # it has no socket, or one that is not connected
                connection.sock.shutdown(SHUT_RDWR)


async def _flush(processor: BatchSpanProcessor) -> None:
    """Let the processor send what waits. Its own time for that cannot be set, so a thread of ours waits for it."""
    loop = asyncio.get_running_loop()
    flushed = asyncio.Event()

    def shut_down() -> None:
        processor.shutdown()  # type: ignore[no-untyped-call]
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(flushed.set)

    threading.Thread(target=shut_down, name="span-flush", daemon=True).start()
    with suppress(TimeoutError):
        async with asyncio.timeout(FLUSH_SECONDS):
            await flushed.wait()


class _Losses:
    """Counts the spans that are lost, and logs them once in REPORT_SECONDS."""

    def __init__(self, observer: SpanObserver) -> None:
        self._observer = observer
        self._unreported = 0
        self._report_at = 0.0
        self.cause = ""
        """Why the last export has failed; empty if it succeeded."""

    def dropped(self, reason: str, spans: int) -> None:
        """So many spans were dropped. Called in the threads of the loop and of the exporter."""
        self._observer.spans_dropped(reason, spans)
        self._unreported += spans
        if monotonic() >= self._report_at:
            self._report_at = monotonic() + REPORT_SECONDS
            # Outside of the request that is handled at this moment, whose ids the line would have.
            Context().run(self._report, reason)
            self._unreported = 0

    def _report(self, reason: str) -> None:
        log.warning("spans_dropped", reason=reason, spans=self._unreported, cause=self.cause)

    def remember_cause(self, record: logging.LogRecord) -> bool:
        """Keep what the exporter says of a batch that it has not sent at all, and suppress its lines."""
        self.cause = self.cause or record.getMessage()
        return False


class _CountedExporter(SpanExporter):
    """Counts what the exporter sends and loses."""

    def __init__(self, exporter: SpanExporter, observer: SpanObserver, losses: _Losses) -> None:
        self._exporter = exporter
        self._observer = observer
        self._losses = losses
        self.sending = 0
        """The spans of the batch that is being sent."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch, with retries until OTEL_EXPORTER_OTLP_TIMEOUT."""
        self.sending = len(spans)
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            self.sending = 0
            if result is SpanExportResult.SUCCESS:
                self._observer.spans_exported(len(spans))
            else:
                self._losses.dropped("export_failed", len(spans))
        return result

    def shutdown(self) -> None:
        """End what waits for a retry."""
        self._exporter.shutdown()


class _CountedProcessor(BatchSpanProcessor):
    """The SDK's queue and thread. It reports a full queue to its own metrics only, which are not in use here."""

    _batch_processor: BatchProcessor[ReadableSpan]

    def __init__(self, exporter: SpanExporter, settings: Settings, losses: _Losses) -> None:
        super().__init__(
            exporter,
            max_queue_size=settings.otel_bsp_max_queue_size,
            schedule_delay_millis=settings.otel_bsp_schedule_delay,
            max_export_batch_size=settings.otel_bsp_max_export_batch_size,
        )
        self._losses = losses
        self._size = settings.otel_bsp_max_queue_size

    @property
    def waiting(self) -> int:
        """The spans in the queue."""
        return len(self._batch_processor._queue)  # noqa: SLF001  # it has no public name

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span. The oldest one is dropped when the queue is full."""
        if self.waiting == self._size:
            self._losses.dropped("queue_full", 1)
        super().on_end(span)
