import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from app.metrics.buffered_durations import BufferedDurations
from app.metrics.instruments import DURATION_BUCKETS


def histogram() -> Histogram:
    """A histogram with the bounds of the durations."""
    return Histogram("seconds", "Seconds.", buckets=DURATION_BUCKETS, registry=CollectorRegistry())


def shown(of: Histogram) -> list[tuple[str, str | None, float]]:
    """The samples of a histogram without its time of creation."""
    (metric,) = of.collect()
    return [(s.name, s.labels.get("le"), s.value) for s in metric.samples if not s.name.endswith("_created")]


@given(st.lists(st.one_of(st.floats(0, 60), st.sampled_from(DURATION_BUCKETS)), max_size=50))
def test_a_flush_adds_what_the_library_would_have_observed(durations: list[float]):
    """Buckets, count and sum are those of the library's own `observe`, for values on a bound, too."""
    expected, found = histogram(), histogram()
    buffered = BufferedDurations(DURATION_BUCKETS)
    for number, seconds in enumerate(durations):
        expected.observe(seconds)
        buffered.observe(seconds)
        if number == 20:
            buffered.flush(lambda: found)
    buffered.flush(lambda: found)
    buffered.flush(lambda: found)

    assert [value for _, _, value in shown(expected)] == pytest.approx([value for _, _, value in shown(found)])
    assert [(name, le) for name, le, _ in shown(expected)] == [(name, le) for name, le, _ in shown(found)]


def test_a_series_is_made_when_there_is_a_duration():
    """An empty buffer does not ask for the histogram."""
    BufferedDurations(DURATION_BUCKETS).flush(lambda: pytest.fail("asked"))
