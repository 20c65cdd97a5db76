"""The settings of tracing, with OpenTelemetry's own names and meanings."""

import os
import re
import ssl
import stat
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from app.settings.addresses import List
from app.settings.environment import FromEnvironment
from app.settings.files import mode_of
from app.settings.values import AnyCase

_URL: Final = re.compile(r"https?://[A-Za-z0-9._~:/@!$&'()*+,;=%\[\]-]+")
"""The characters of a URL without a query and a fragment."""

_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

_RATIO: Final = "traceidratio"


class Sampler(StrEnum):
    """Which requests are traced, by OpenTelemetry's names."""

    ALWAYS_ON = "always_on"
    ALWAYS_OFF = "always_off"
    TRACEIDRATIO = _RATIO
    PARENTBASED_ALWAYS_ON = "parentbased_always_on"
    PARENTBASED_ALWAYS_OFF = "parentbased_always_off"
    PARENTBASED_TRACEIDRATIO = f"parentbased_{_RATIO}"


def _collector_url(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        is_usable = bool(parts.hostname) and parts.port != 0  # a port that is no number raises
    except ValueError:
        is_usable = False
    if not is_usable or not _URL.fullmatch(value) or "@" in value:
        raise ValueError(
            "must be a URL like http://collector:4318, without a user, a query or a fragment; "
            "spans are sent to /v1/traces below it"
        )
    return value.removesuffix("/")


def pairs(text: str) -> dict[str, str]:
    """The values by name of a text like `team=items,zone=a%2Cb`.

    Raises:
        ValueError: It has another form.
    """
    found = {}
    for entry in filter(None, map(str.strip, text.split(","))):
        name, equals, value = entry.partition("=")
        if not equals or not name.strip():
            raise ValueError("must be like name=value, separated by commas, with %2C for a comma in a value")
        found[name.strip()] = unquote(value.strip())
    return found


def _milliseconds(value: int) -> int:
    if not 100 <= value <= 60_000:
        raise ValueError("is in milliseconds, and must be from 100 to 60000: write 10000 for ten seconds")
    return value


def _check_headers(value: SecretStr) -> SecretStr:
    for name, text in pairs(value.get_secret_value()).items():
        if not _HEADER.fullmatch(name) or not (text.isascii() and text.isprintable()):
            raise ValueError("must be names of headers with printable values: name=value, separated by commas")
    return value


def _check_pairs(value: str) -> str:
    pairs(value)
    return value


def _check_certificates(value: Path) -> Path:
    if not stat.S_ISREG(mode_of(value)) or not os.access(value, os.R_OK):
        raise ValueError("must name a file that this process can read")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(value)
    except ssl.SSLError:
        raise ValueError("must name a file with certificates in the PEM format") from None
    return value


def _check_propagators(value: tuple[str, ...]) -> tuple[str, ...]:
    if "tracecontext" not in value or not {*value} <= {"tracecontext", "baggage"}:
        raise ValueError("must be tracecontext,baggage or tracecontext: the others are not supported")
    return value


def _http_only(value: Any) -> Any:
    if value != "http/protobuf":
        raise ValueError("must be http/protobuf, which collectors take at port 4318: gRPC and JSON are not supported")
    return value


class TracingSettings(FromEnvironment):
    """The settings of tracing. Times are in milliseconds, as OpenTelemetry specifies."""

    otel_exporter_otlp_endpoint: Annotated[str | None, AfterValidator(_collector_url)] = None
    """The address of an OpenTelemetry collector, such as `http://collector:4318`. It switches tracing on."""

    otel_exporter_otlp_protocol: Annotated[str, AfterValidator(_http_only)] = "http/protobuf"
    """How spans are sent. Only `http/protobuf` is supported."""

    otel_exporter_otlp_headers: Annotated[SecretStr, AfterValidator(_check_headers)] | None = None
    """Headers for the collector, such as an access token: `name=value`, separated by commas."""

    otel_exporter_otlp_headers_file: Path | None = None
    """A file that contains OTEL_EXPORTER_OTLP_HEADERS, such as a mounted secret."""

    otel_exporter_otlp_certificate: Annotated[Path, AfterValidator(_check_certificates)] | None = None
    """A file with the certificates of the authorities that may sign the collector's. By default those that `certifi`
    ships."""

    otel_exporter_otlp_compression: Literal["none", "gzip"] = "none"
    """`gzip` compresses what is sent to the collector."""

    otel_exporter_otlp_timeout: Annotated[int, AfterValidator(_milliseconds)] = 10_000
    """How long one batch may take to be sent, with its retries, in milliseconds. After that its spans are dropped."""

    otel_service_name: Annotated[str, Field(max_length=255)] | None = None
    """The name of the service in traces. By default `service.name` of OTEL_RESOURCE_ATTRIBUTES, else the project's."""

    otel_resource_attributes: Annotated[str, AfterValidator(_check_pairs)] | None = None
    """Further attributes of all spans: `name=value`, separated by commas."""

    otel_traces_sampler: Annotated[Sampler, AnyCase] = Sampler.PARENTBASED_ALWAYS_ON
    """Which requests are traced: `always_on`, `always_off`, `traceidratio`, or `parentbased_` before one of these to
    do as the caller's `traceparent` says where there is one."""

    otel_traces_sampler_arg: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    """The part of the requests that `traceidratio` traces, from 0 to 1. By default 1."""

    otel_traces_exporter: Literal["otlp", "none"] = "otlp"
    """`none` switches tracing off."""

    otel_sdk_disabled: bool = False
    """`true` switches tracing off."""

    otel_propagators: Annotated[List, AfterValidator(_check_propagators)] = ("tracecontext", "baggage")
    """How the caller's trace is read. Only W3C `traceparent` and `tracestate` are supported."""

    otel_bsp_schedule_delay: Annotated[int, AfterValidator(_milliseconds)] = 5000
    """How long spans are collected before they are sent, in milliseconds."""

    otel_bsp_max_queue_size: Annotated[int, Field(ge=1, le=100_000)] = 2048
    """The most spans that wait in one worker. When there are more, the oldest is dropped."""

    otel_bsp_max_export_batch_size: Annotated[int, Field(ge=1, le=100_000)] = 512
    """The most spans that are sent together. That many are sent without waiting for OTEL_BSP_SCHEDULE_DELAY."""

    @model_validator(mode="after")
    def _check_tracing(self) -> "TracingSettings":
        if self.otel_traces_sampler_arg is not None and _RATIO not in self.otel_traces_sampler:
            raise ValueError(
                "OTEL_TRACES_SAMPLER_ARG does nothing with this OTEL_TRACES_SAMPLER: "
                f"set that to parentbased_{_RATIO}, or leave the argument out."
            )
        if self.otel_bsp_max_export_batch_size > self.otel_bsp_max_queue_size:
            raise ValueError(
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE must be at most OTEL_BSP_MAX_QUEUE_SIZE, "
                f"which is {self.otel_bsp_max_queue_size}."
            )
        return self

    @property
    def is_tracing(self) -> bool:
        """Whether requests are traced."""
        return (
            bool(self.otel_exporter_otlp_endpoint)
            and self.otel_traces_exporter == "otlp"
            and not self.otel_sdk_disabled
        )
