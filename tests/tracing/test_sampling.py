"""The decision before a span is made is the one that OpenTelemetry's samplers would make."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.settings.tracing import Sampler
from app.state_keys import TRACE
from app.tracing.sampling import RequestSampler
from app.tracing.traceparent import parent_of

RATIO = 0.25

ROOTS = {"always_on": ALWAYS_ON, "always_off": ALWAYS_OFF, "traceidratio": TraceIdRatioBased(RATIO)}

IDS = st.integers(0, 2**128 - 1)


def excludes(sampler: RequestSampler, headers=(), path="/samples"):
    """Whether the request is excluded, and the ids that it has got."""
    scope = {"type": "http", "path": path, "headers": list(headers)}
    return sampler.excludes(scope), scope.get("state", {}).get(TRACE)


@pytest.mark.parametrize("name", Sampler)
@given(trace_id=IDS.filter(bool), flags=st.integers(0, 255))
def test_with_a_caller_the_decision_is_the_sdks(name, trace_id, flags):
    """By the caller's flag for `parentbased_`, else by its trace id."""
    given_header = f"00-{trace_id:032x}-00f067aa0ba902b7-{flags:02x}"
    excluded, ids = excludes(RequestSampler(name, RATIO, ()), [(b"traceparent", given_header.encode())])

    root = ROOTS[name.removeprefix("parentbased_")]
    sampler = ParentBased(root) if name.startswith("parentbased_") else root
    context = TraceContextTextMapPropagator().extract({"traceparent": given_header})
    assert sampler.should_sample(context, trace_id, "GET").decision.is_sampled() is not excluded
    assert f"{trace_id:032x}" == ids[0]


@pytest.mark.parametrize("name", Sampler)
def test_without_a_caller_the_decision_is_the_sdks(name):
    """It depends on the drawn trace id, so that other services choose the same traces by it."""
    root = ROOTS[name.removeprefix("parentbased_")]
    sampler = RequestSampler(name, RATIO, ())
    for _ in range(500):
        excluded, (trace_id, span_id) = excludes(sampler)

        assert root.should_sample(None, int(trace_id, 16), "GET").decision.is_sampled() is not excluded
        assert (32, 16) == (len(trace_id), len(span_id))


@pytest.mark.parametrize(("ratio", "excluded"), [(0.0, 1000), (1.0, 0), (None, 0)])
def test_no_request_and_every_request(ratio, excluded):
    """At the ends of the range nothing is left to chance. Without a ratio every request is traced."""
    sampler = RequestSampler(Sampler.PARENTBASED_TRACEIDRATIO, ratio, ())

    assert excluded == sum(excludes(sampler)[0] for _ in range(1000))


def test_untraced_paths_get_no_ids():
    """They are excluded whatever the caller says."""
    header = (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")

    assert (True, None) == excludes(RequestSampler(Sampler.ALWAYS_ON, None, {"/health"}), [header], path="/health")


@given(
    st.one_of(
        st.from_regex(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[a-z]*)?", fullmatch=True),
        st.builds(b"00-%032x-%016x-%02x".__mod__, st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 3))),
        st.binary(max_size=60),
    )
)
def test_a_traceparent_is_read_as_the_sdk_reads_it(value):
    """The log lines and the span have the same trace id, or both ignore the header."""
    context = TraceContextTextMapPropagator().extract({"traceparent": value.decode("latin-1").strip()})
    expected = trace.get_current_span(context).get_span_context()
    found = parent_of([value.strip()])

    assert (found is not None) == expected.is_valid
    if found is not None:
        assert (f"{expected.trace_id:032x}", expected.trace_flags.sampled) == (found.trace_id, found.is_sampled)
