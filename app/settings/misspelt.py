"""Finds variables that are probably meant as settings, and are not."""

import os
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from app.settings import Settings

_NAME: Final = re.compile(r"^\s*(?:export\s+)?(\w+)\s*=", re.MULTILINE)
"""At the beginning of a line of `.env`."""

_SIMILARITY: Final = 0.85
_SHORTEST: Final = 8
"""The name of a shorter setting, such as PORT, resembles too many variables of other programs."""


def misspelt_variables(dotenv: Path = Path(".env")) -> list[tuple[str, str]]:
    """The variables of the environment and of `.env` that are no settings, each with the setting that it resembles."""
    written = _NAME.findall(dotenv.read_text(encoding="utf-8-sig")) if dotenv.is_file() else []
    return sorted(_resembling({*os.environ, *written}))


def _resembling(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    settings = {name.upper() for name in Settings.model_fields}
    candidates = [name for name in settings if len(name) >= _SHORTEST]
    for name in names:
        if name.upper() not in settings and (similar := get_close_matches(name.upper(), candidates, 1, _SIMILARITY)):
            yield name, similar[0]
