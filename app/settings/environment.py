"""Reads settings from the environment, `.env` and secret files, and says in one sentence what is wrong with them."""

import os
import re
import stat
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any, Final, Self, get_args

from dotenv.parser import parse_stream
from pydantic import ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.errors import StartupError
from app.settings.files import mode_of

_LONGEST_SECRET: Final = 65_536

_WHOLE_NUMBER: Final = re.compile(r"-?[0-9]+")
_NUMBER: Final = re.compile(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")

_CONSEQUENCE: Final = "default_factory_not_called"
"""The type of Pydantic's error for a default that depends on other settings, where one of these is malformed."""

_MESSAGES: Final = {
    "bool_parsing": "must be true or false",
    "float_parsing": "must be a number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a smaller whole number",
    "string_too_long": "must have at most {max_length} characters",
}
"""What to write, by the type of Pydantic's error, where its own message does not say so."""


class FromEnvironment(BaseSettings):
    """Fields that are read from the environment once and never change.

    Where there is also a field of the same name with `_file` appended, the value may be in the file that it names.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8-sig",
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
    )

    @classmethod
    def load(cls, **values: Any) -> Self:
        """Read the environment.

        Raises:
            StartupError: A setting is malformed, or contradicts another one.
        """
        for variables in (os.environ, _checked_dotenv(values.get("_env_file", cls.model_config["env_file"]))):
            _check_spellings(cls.model_fields, variables)
        try:
            return cls(**values)
        except ValidationError as error:
            causes = [e for e in error.errors(include_url=False) if e["type"] != _CONSEQUENCE]
            raise StartupError(" ".join(map(_sentence, causes))) from None

    @model_validator(mode="before")
    @classmethod
    def _prepare(cls, values: dict[str, Any]) -> dict[str, Any]:
        stripped = {name: _strip(name, value) if isinstance(value, str) else value for name, value in values.items()}
        given = {name: value for name, value in stripped.items() if value != ""}
        return given | cls._read_files(given)

    @field_validator("*", mode="before")
    @classmethod
    def _check_digits(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `8000.0` and `8_000` for a whole number, and `1_5` for seconds, which Pydantic would read as well."""
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, str) and is_whole_number(kind) and not _WHOLE_NUMBER.fullmatch(value):
            raise ValueError("must be a whole number")
        if isinstance(value, str) and _is_kind(kind, float) and not _NUMBER.fullmatch(value):
            raise ValueError("must be a number")
        return value

    @classmethod
    def _read_files(cls, values: dict[str, Any]) -> dict[str, str]:
        read: dict[str, str] = {}
        for name in cls.model_fields:
            file = f"{name}_file"
            if file not in cls.model_fields or file not in values:
                continue
            if name in values:
                raise ValueError(f"{name.upper()} and {file.upper()} must not both be set.")
            read[name] = read_secret(Path(values[file]), file)
        return read


def is_whole_number(kind: Any) -> bool:
    """Whether a field of this type is a whole number, with or without limits, or none."""
    return _is_kind(kind, int)


def _is_kind(kind: Any, number: type) -> bool:
    return any(number is getattr(part, "__origin__", part) for part in (kind, *get_args(kind)))


def read_secret(file: Path, name: str) -> str:
    """The content of the file that the setting of this name stands for.

    Raises:
        StartupError: It cannot be read, or cannot be read more than once, as a pipe.
    """
    mode = mode_of(file)
    if mode and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise StartupError(f"{name.upper()} must name a regular file, and not a pipe or a device.")
    try:
        with file.open(encoding="utf-8") as opened:
            text = opened.read(_LONGEST_SECRET + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise StartupError(f"{name.upper()} names a file that cannot be read: {reason}.") from None
    if len(text) > _LONGEST_SECRET:
        raise StartupError(
            f"{name.upper()} names a file of more than {_LONGEST_SECRET} characters, which is no secret."
        )
    return text.strip()


def _strip(name: str, value: str) -> str:
    """The value without the white space around it. An empty one counts as not set."""
    value = value.strip()
    if not value.isprintable():
        raise ValueError(f"{name.upper()} must be one line of text in UTF-8, without control characters.")
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        raise ValueError(f"{name.upper()} must be written without the quotes around it.")
    return value


def _check_spellings(fields: Iterable[str], variables: Mapping[str, str | None]) -> None:
    """Refuse a setting that two variables give different values, as `PORT` and `port`: the last one would count."""
    spellings: dict[str, str] = {}
    for name, value in variables.items():
        other = spellings.setdefault(name.lower(), name)
        if value and variables[other] and value != variables[other] and name.lower() in fields:
            raise StartupError(f"{other} and {name} are the same setting, and have different values: remove one.")


def _checked_dotenv(file: str | None) -> dict[str, str | None]:
    """The variables of the `.env`.

    Raises:
        StartupError: It cannot be read as a whole: settings would be missing without a word.
    """
    if file is None or not os.path.lexists(file):
        return {}
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise StartupError(f"{file} cannot be read: {error.strerror}. Correct that, or remove it.") from None
    except UnicodeError:
        text = "\0"
    if "\0" in text:
        raise StartupError(f"{file} must be text in UTF-8: save it in that encoding.")
    lines = list(parse_stream(StringIO(text)))
    for line in lines:
        if line.error:  # dotenv would leave the line out
            written = line.original.string
            number = line.original.line + written[: len(written) - len(written.lstrip())].count("\n")
            raise StartupError(
                f"Line {number} of {file} must be like NAME=value, with both quotes if it has any, "
                "or begin with # if it is a comment."
            )
    return {line.key: line.value for line in lines if line.key is not None}


def _sentence(error: Any) -> str:
    """One sentence that names the variable and says what to write, without the value: it may be a secret."""
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return str(message)
    if error["type"] in _MESSAGES:
        message = _MESSAGES[error["type"]].format(**error.get("ctx", {}))
    message = message.replace("Input should be", "must be", 1)
    return f"{str(error['loc'][0]).upper()} {message[0].lower()}{message[1:]}."
