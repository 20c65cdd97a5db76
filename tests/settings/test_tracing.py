"""OpenTelemetry's variables: what switches tracing on, and what is refused."""

import pytest

from app import tracing
from app.errors import StartupError
from app.metrics.instruments import Metrics
from app.settings import Settings
from app.settings.misspelt import check_tracing_variables
from app.settings.tracing import pairs
from app.tracing import check_packages, create_tracing

ENDPOINT = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/")


def test_the_endpoint_switches_tracing_on(environment):
    """Without it the other variables have no effect."""
    environment("OTEL_SERVICE_NAME", "tea")
    assert not Settings.load().is_tracing

    environment(*ENDPOINT)
    assert Settings.load().is_tracing
    assert "http://collector:4318" == Settings.load().otel_exporter_otlp_endpoint


@pytest.mark.parametrize(("name", "value"), [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")])
def test_tracing_can_be_switched_off_beside_the_endpoint(environment, name, value):
    """By either of OpenTelemetry's switches."""
    environment(*ENDPOINT)
    environment(name, value)

    assert not Settings.load().is_tracing


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "must be a URL like http://collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:hunter2@collector:4318", "must be a URL like"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:many", "must be a URL like"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "must be http/protobuf, which collectors take at port 4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2", "must be like name=value"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a b=hunter2", "must be names of headers"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere", "must name a file"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", __file__, "must name a file with certificates in the PEM format"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", "must be 'none' or 'gzip'"),
        (
            "OTEL_EXPORTER_OTLP_TIMEOUT",
            "10",
            "is in milliseconds, and must be from 100 to 60000: write 10000 for ten seconds",
        ),
        ("OTEL_RESOURCE_ATTRIBUTES", "team", "must be like name=value"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote", "must be 'always_on', 'always_off'"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5", "must be less than or equal to 1"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.5", "does nothing with this OTEL_TRACES_SAMPLER"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "must be 'otlp' or 'none'"),
        ("OTEL_PROPAGATORS", "b3", "must be tracecontext,baggage or tracecontext"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096", "must be at most OTEL_BSP_MAX_QUEUE_SIZE, which is 2048"),
    ],
)
def test_a_value_that_cannot_work_is_refused(environment, name, value, sentence):
    """The sentence names the variable, says what to write, and does not show the value."""
    environment(name, value)

    with pytest.raises(StartupError) as refused:
        Settings.load()

    assert str(refused.value).startswith(f"{name} {sentence}")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "set OTEL_EXPORTER_OTLP_HEADERS in its place"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "leave it out"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "leave it out"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "leave it out"),
    ],
)
def test_a_variable_that_would_have_no_effect_is_refused(environment, name, advice):
    """Where tracing is on. Otherwise it may be there for other programs."""
    environment(name, "5")
    check_tracing_variables(Settings.load())

    environment(*ENDPOINT)
    with pytest.raises(StartupError, match=rf"^{name} is not supported: {advice}\.$"):
        check_tracing_variables(Settings.load())


def test_an_endpoint_for_traces_alone_is_refused(environment):
    """It would leave tracing off."""
    environment("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:4318/v1/traces")

    with pytest.raises(StartupError, match="set OTEL_EXPORTER_OTLP_ENDPOINT in its place"):
        check_tracing_variables(Settings.load())


@pytest.mark.parametrize("name", ["OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"])
def test_variables_about_metrics_and_logs_are_left_alone(environment, name):
    """Only traces are sent to a collector."""
    environment(*ENDPOINT)
    environment(name, "otlp")

    check_tracing_variables(Settings.load())


def test_missing_packages_are_named(environment, monkeypatch):
    """A start without them ends with one sentence that says what to install; switched off, it needs none of them."""
    monkeypatch.setattr(tracing, "PACKAGES", ("opentelemetry.sdk.nothing.at_all",))
    assert create_tracing(Settings.load(), Metrics(), ()) is None

    environment(*ENDPOINT)
    for check in (check_packages, lambda: create_tracing(Settings.load(), Metrics(), ())):
        with pytest.raises(StartupError, match=r"packages that are not installed: install requirements/tracing\.txt"):
            check()


def test_values_of_a_list_are_decoded():
    """As the specification says: percent-encoding, and white space around names and values is no part of them."""
    assert {"team": "a,b", "zone": "x=y", "empty": ""} == pairs(" team = a%2Cb ,zone=x=y,empty=,")
