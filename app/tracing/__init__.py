"""Traces of requests, by OpenTelemetry. Only where it is switched on are its packages imported."""

from collections.abc import Container
from importlib.util import find_spec
from typing import Final

from app.errors import StartupError
from app.settings import Settings
from app.tracing.observer import SpanObserver
from app.tracing.tracing import Tracing as Tracing

PACKAGES: Final = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")
"""What requirements/tracing.txt installs besides requirements/runtime.txt."""


def create_tracing(settings: Settings, observer: SpanObserver, untraced: Container[str]) -> Tracing | None:
    """Return what traces the requests of one worker; None where tracing is off. Create it after the fork.

    Args:
        settings: The settings.
        observer: Receives what became of the spans.
        untraced: The paths whose requests are never traced.

    Raises:
        StartupError: It is on, and its packages are not installed.
    """
    if not settings.is_tracing:
        return None
    check_packages()
    return Tracing(settings, observer, untraced)


def check_packages() -> None:
    """Look for the packages without importing them.

    Raises:
        StartupError: One is missing.
    """
    try:
        is_installed = all(map(find_spec, PACKAGES))
    except ModuleNotFoundError:
        is_installed = False
    if not is_installed:
        raise StartupError(
            "OTEL_EXPORTER_OTLP_ENDPOINT needs packages that are not installed: install requirements/tracing.txt in "
            "place of requirements/runtime.txt, or leave the variable out."
        )
