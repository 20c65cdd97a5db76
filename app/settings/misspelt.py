"""Finds variables that are probably meant as settings, and are not."""

import os
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Final

import structlog

from app.errors import StartupError
from app.settings import Settings

_NAME: Final = re.compile(r"^\s*(?:export\s+)?(\w+)\s*=", re.MULTILINE)
"""At the beginning of a line of `.env`."""

_SIMILARITY: Final = 0.85
_SHORTEST: Final = 8
"""The name of a shorter setting, such as PORT, resembles too many variables of other programs."""


_DOTENV: Final = Path(".env")

_UNSUPPORTED: Final = re.compile(
    r"OTEL_(?:EXPORTER_OTLP_TRACES_|EXPORTER_OTLP_(?:CLIENT_|INSECURE)|TRACES_|BSP_|SPAN_|ATTRIBUTE_|EVENT_|LINK_"
    r"|CONFIG_FILE|EXPERIMENTAL_).*"
)
"""OpenTelemetry's variables about traces, besides the settings. Those about metrics and logs have no effect here."""

_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


def warn_of_misspelt_variables() -> None:
    """Log the variables that `misspelt_variables` finds, without their values."""
    for name, similar in misspelt_variables():
        structlog.get_logger("settings").warning("setting_unknown", name=name, similar=similar)


def misspelt_variables(dotenv: Path = _DOTENV) -> list[tuple[str, str]]:
    """The variables of the environment and of `.env` that are no settings, each with the setting that it resembles."""
    names = (name for name in _variables(dotenv) if not _UNSUPPORTED.fullmatch(name.upper()))
    return sorted(_resembling(names))


def check_tracing_variables(settings: Settings, dotenv: Path = _DOTENV) -> None:
    """Refuse variables of OpenTelemetry that would change the traces elsewhere, and have no effect here.

    Raises:
        StartupError: There is one, and tracing is on or meant to be on.
    """
    known = {name.upper() for name in Settings.model_fields}
    for name in sorted({name.upper() for name in _variables(dotenv)} - known):
        if _UNSUPPORTED.fullmatch(name) and (settings.is_tracing or name == _ENDPOINT):
            general = name.replace("_TRACES_", "_")
            advice = f"set {general} in its place" if general in known else "leave it out"
            raise StartupError(f"{name} is not supported: {advice}.")


def _variables(dotenv: Path) -> set[str]:
    written = _NAME.findall(dotenv.read_text(encoding="utf-8-sig")) if dotenv.is_file() else []
    return {*os.environ, *written}


def _resembling(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    settings = {name.upper() for name in Settings.model_fields}
    candidates = [name for name in settings if len(name) >= _SHORTEST]
    for name in names:
        if name.upper() not in settings and (similar := get_close_matches(name.upper(), candidates, 1, _SIMILARITY)):
            yield name, similar[0]
