"""The request and response bodies of samples."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, Strict, StringConstraints

Name = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]*[^\s\x00][^\x00]*$")]
Description = Annotated[str, StringConstraints(max_length=10_000, pattern=r"^[^\x00]*$")]
Amount = Annotated[float, Strict(), Field(ge=0, le=1e12, allow_inf_nan=False)]
SampleId = Annotated[int, Field(ge=1, le=2**63 - 1, examples=[1])]
PageNumber = Annotated[int, Field(ge=1, description="The number of the page, from 1.")]
PerPage = Annotated[int, Field(ge=1, le=100, description="The number of samples in a page.")]

_EXAMPLE: dict[str, JsonValue] = {"name": "Salt", "description": "From the sea.", "amount": 3}
_TIME = "2026-11-22T13:00:00.123456Z"
_STORED: dict[str, JsonValue] = {"id": 1, **_EXAMPLE, "created_at": _TIME, "updated_at": _TIME}


class _RequestBody(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True, extra="ignore", json_schema_extra={"examples": [_EXAMPLE]})


class SampleCreate(_RequestBody):
    """The body that creates or replaces a sample."""

    name: Name
    description: Description | None = None
    amount: Amount | None = None


def _absent() -> Any:
    """Return the default of a field that can be absent, but not null."""
    return None


class SampleUpdate(_RequestBody):
    """The fields to change, at least one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"amount": 4}], "minProperties": 1})

    name: Name = Field(default_factory=_absent)
    description: Description | None = None
    amount: Amount | None = None

    def to_changes(self) -> dict[str, Any]:
        """Return the fields that were present, by name."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class SampleRead(BaseModel):
    """A sample as it is stored."""

    model_config = ConfigDict(json_schema_extra={"examples": [_STORED]})

    id: int
    name: str
    description: str | None
    amount: float | None
    created_at: datetime
    updated_at: datetime


class SampleInList(SampleRead):
    """A sample in a list, with its version."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**_STORED, "etag": '"1-1795352400123456"'}]})

    etag: str


class SampleList(BaseModel):
    """A page of samples, in the order of their ids."""

    samples: list[SampleInList]
    page: int | None
    per_page: int
    total: int | None
    total_is_exact: bool | None
    pages: int | None
    next_cursor: str | None
