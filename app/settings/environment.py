"""Reads settings from the environment, `.env` and secret files, and says in one sentence what is wrong with them."""

from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.errors import StartupError


class FromEnvironment(BaseSettings):
    """Fields that are read from the environment once and never change.

    Where there is also a field of the same name with `_file` appended, the value may be in the file that it names.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    @classmethod
    def load(cls, **values: Any) -> Self:
        """Read the environment.

        Raises:
            StartupError: A setting is malformed, or contradicts another one.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise StartupError(" ".join(_sentence(e) for e in error.errors(include_url=False))) from None

    @model_validator(mode="before")
    @classmethod
    def _read_files(cls, values: dict[str, Any]) -> dict[str, Any]:
        read: dict[str, str] = {}
        for name in cls.model_fields:
            file = f"{name}_file"
            if file not in cls.model_fields or file not in values:
                continue
            if name in values:
                raise ValueError(f"{name.upper()} and {file.upper()} must not both be set.")
            read[name] = read_secret(Path(values[file]), file)
        return values | read


def read_secret(file: Path, name: str) -> str:
    """The content of the file that the setting of this name stands for.

    Raises:
        StartupError: It cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise StartupError(f"{name.upper()} names a file that cannot be read: {reason}.") from None


def _sentence(error: Any) -> str:
    """One sentence that names the variable and says what to write, without the value: it may be a secret."""
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return str(message)
    message = message.replace("Input should be", "must be", 1)
    return f"{str(error['loc'][0]).upper()} {message[0].lower()}{message[1:]}."
