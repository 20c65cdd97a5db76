"""Decides which requests are traced, before anything is done for a trace."""

from collections.abc import Container, MutableMapping
from contextvars import ContextVar
from random import getrandbits
from typing import Any, Final

from app.settings.tracing import Sampler
from app.state_keys import TRACE
from app.tracing.traceparent import parent_of

_TRACE_ID_BITS: Final = 128
_SPAN_ID_BITS: Final = 64
_IDS_BYTES: Final = (_TRACE_ID_BITS + _SPAN_ID_BITS) // 8
_LOWER_BITS: Final = (1 << 64) - 1
_PARENT_BASED: Final = "parentbased_"


began_traced: ContextVar[bool] = ContextVar("began_traced", default=False)
"""Whether a request with a span began here. A task that the request has started may run on when its span has ended."""


class NextIds:
    """The ids of the request that is traced next: its span is made right after the decision."""

    def __init__(self) -> None:
        self.trace_id = 0
        """0: the SDK draws one, or takes the caller's."""
        self.span_id = 0


class RequestSampler:
    """OpenTelemetry's samplers, at the cost of reading one header.

    FastAPI makes a span for each request, and the SDK's sampler decides then that it is not recorded: that costs as
    much as all of the service's own middleware. Here most requests are excluded before. The ids are drawn for all of
    them, because the decision depends on the trace id and the log lines have both.
    """

    def __init__(self, sampler: Sampler, ratio: float | None, untraced: Container[str]) -> None:
        """Decide by a sampler.

        Args:
            sampler: Which one.
            ratio: OTEL_TRACES_SAMPLER_ARG.
            untraced: The paths that are never traced.
        """
        self.follows_parent = sampler.startswith(_PARENT_BASED)
        """Whether the decision of the caller counts where there is one."""
        fixed = {"always_on": 1.0, "always_off": 0.0}.get(sampler.removeprefix(_PARENT_BASED), ratio)
        self.ratio = 1.0 if fixed is None else fixed
        """The part of the other requests that is traced."""
        self.next_ids = NextIds()
        self._untraced = untraced
        # As the SDK's TraceIdRatioBased, so that services which do not follow their parent choose the same traces.
        self._bound = round(self.ratio * (_LOWER_BITS + 1))

    def excludes(self, scope: MutableMapping[str, Any]) -> bool:
        """Whether this request is not traced. Its ids are in the state of the scope then as well."""
        if scope["path"] in self._untraced:
            return True
        given = []
        for name, value in scope["headers"]:
            if name == b"traceparent":
                given.append(value)
        parent = parent_of(given) if given else None
        # Both ids at once. One of zeros is invalid, and as rare as any other.
        drawn = getrandbits(_TRACE_ID_BITS + _SPAN_ID_BITS)  # nosec B311
        ids = drawn.to_bytes(_IDS_BYTES).hex()
        trace_id, span_id = ids[:32], ids[32:]
        if parent is None:
            is_sampled = drawn >> _SPAN_ID_BITS & _LOWER_BITS < self._bound
        else:
            trace_id = parent.trace_id
            is_sampled = parent.is_sampled if self.follows_parent else int(trace_id[16:], 16) < self._bound
        scope.setdefault("state", {})[TRACE] = (trace_id, span_id)
        if is_sampled:
            began_traced.set(True)
            if len(given) > 1:  # FastAPI would take the first one for the parent
                scope["headers"] = [header for header in scope["headers"] if header[0] != b"traceparent"]
            self.next_ids.trace_id = 0 if parent else drawn >> _SPAN_ID_BITS
            self.next_ids.span_id = int(span_id, 16)
        return not is_sampled
