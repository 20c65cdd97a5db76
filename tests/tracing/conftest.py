"""A collector, and the application that sends its spans there."""

from collections.abc import Iterator

import pytest

from app.settings import Settings
from tests.tracing.collector import Collector, collecting


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector of this test alone."""
    with collecting() as running:
        yield running


@pytest.fixture
def traced_settings(settings: Settings, collector: Collector) -> Settings:
    """The settings of this test, with every request traced."""
    return settings.model_copy(update={"otel_exporter_otlp_endpoint": collector.url})
