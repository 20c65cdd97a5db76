"""The SDK's provider of spans, with the ids that the request sampler has drawn, and without query strings."""

from collections.abc import Sequence
from typing import Final
from uuid import uuid4

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from app import NAME, __version__
from app.settings import Settings
from app.settings.tracing import pairs
from app.tracing.sampling import NextIds, RequestSampler

_LONGEST_VALUE: Final = 1024
"""Clients choose the path and the host, and spans wait in memory: longer values are shortened."""

_INSTANCE: Final = "service.instance.id"


def create_provider(settings: Settings, sampler: RequestSampler) -> TracerProvider:
    """Return a provider of spans that are sent nowhere yet."""
    ratio = TraceIdRatioBased(sampler.ratio)
    return TracerProvider(
        sampler=_WithoutQuery(ParentBased(ratio) if sampler.follows_parent else ratio),
        resource=Resource.create(_resource(settings)),
        shutdown_on_exit=False,  # the lifespan does it, in a bounded time
        id_generator=_DrawnIds(sampler.next_ids),
        span_limits=SpanLimits(max_attribute_length=_LONGEST_VALUE),
    )


def _resource(settings: Settings) -> dict[str, str]:
    """What all spans of this worker have in common. The id of the instance is that of the worker, not of the host."""
    given = pairs(settings.otel_resource_attributes or "")
    attributes = {"service.name": NAME, "service.version": settings.build_version or __version__, **given}
    if settings.otel_service_name:
        attributes["service.name"] = settings.otel_service_name
    worker = str(uuid4())
    attributes[_INSTANCE] = f"{given[_INSTANCE]}/{worker}" if _INSTANCE in given else worker
    return attributes


class _DrawnIds(RandomIdGenerator):
    """Gives the span of a request the ids that its log lines have, and every other span random ones."""

    def __init__(self, next_ids: NextIds) -> None:
        self._next = next_ids

    def generate_trace_id(self) -> int:
        """The one that was drawn for the request, once."""
        drawn, self._next.trace_id = self._next.trace_id, 0
        return drawn or super().generate_trace_id()

    def generate_span_id(self) -> int:
        """The one that was drawn for the request, once."""
        drawn, self._next.span_id = self._next.span_id, 0
        return drawn or super().generate_span_id()


class _WithoutQuery(Sampler):
    """Decides as another sampler, and removes the query string: it contains what people search for."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def should_sample(  # noqa: PLR0917  # the SDK's signature
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """The decision of the other sampler; the SDK gives the span the attributes that it returns."""
        if attributes and "url.query" in attributes:
            attributes = {key: value for key, value in attributes.items() if key != "url.query"}
        return self._sampler.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """The other sampler's."""
        return self._sampler.get_description()
