"""The tracing of one worker: what FastAPI and the database need of it, and its life."""

from collections.abc import Container
from contextlib import AbstractAsyncContextManager

from app import __version__
from app.settings import Settings
from app.tracing.observer import SpanObserver
from app.tracing.sampling import RequestSampler, began_traced


class Tracing:
    """Makes spans of the requests that are sampled, and sends them to the collector in the background."""

    def __init__(self, settings: Settings, observer: SpanObserver, untraced: Container[str]) -> None:
        """Prepare spans. None is sent before `opened`.

        Args:
            settings: With an address of a collector.
            observer: Receives what became of the spans.
            untraced: The paths whose requests are never traced.
        """
        # Imported only here: these packages take 9 MB, and most deployments do not trace.
        from app.tracing.provider import create_provider  # noqa: PLC0415

        self._settings = settings
        self._observer = observer
        sampler = RequestSampler(settings.otel_traces_sampler, settings.otel_traces_sampler_arg, untraced)
        self.is_untraced = sampler.excludes
        """Whether no span is made for the request with this scope. It is called once for each request."""
        self.may_be_traced = began_traced.get
        """Whether the current request has a span, or a task goes on that it has started."""
        self.provider = create_provider(settings, sampler)
        """What FastAPI makes its spans with."""
        self.tracer = self.provider.get_tracer("app.database", __version__)
        """What the database makes its spans with."""

    def opened(self) -> AbstractAsyncContextManager[None]:
        """Send the spans until the block ends, and those that wait then."""
        from app.tracing.export import exporting  # noqa: PLC0415

        return exporting(self.provider, self._settings, self._observer)
