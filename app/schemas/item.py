"""The request and response bodies of items, and the types of their parameters."""

import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    JsonValue,
    Strict,
    StringConstraints,
)
from pydantic_core import CoreSchema, core_schema

from app.dataclasses.item import ItemData

_NO_NUL = r"^[^\x00]*$"
_NOT_BLANK = r"^[^\x00]*[^\s\x00][^\x00]*$"
"""At least one character that is not white space, and no NUL, which PostgreSQL cannot store."""

_VISIBLE = r"^[^\x00]*[^\s\x00\p{Cc}\p{Cf}\p{Z}\p{M}\u{115f}\u{1160}\u{2800}\u{3164}\u{ffa0}][^\x00]*$"
"""As `_NOT_BLANK`, and that character can be seen by itself: it is no control, format, space or combining character,
no Hangul filler, and not the empty pattern of Braille. Not all clients know these classes, so it is not published."""


class _Visible:
    """Refuses a text of invisible characters alone. In Pydantic's core, this takes no measurable time."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        message = "The name needs a visible character, and must not contain NUL"
        visible = core_schema.str_schema(pattern=_VISIBLE)
        return core_schema.chain_schema(
            [handler(source), core_schema.custom_error_schema(visible, "invisible", custom_error_message=message)]
        )


def _two_decimals(price: float) -> float:
    if round(price, 2) != price:
        raise ValueError("A price has at most two decimals")
    return price + 0.0  # turns -0.0 into 0.0


_PRICE = "In the currency's major unit, with at most two decimals."

Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=255),
    Field(json_schema_extra={"pattern": _NOT_BLANK}),
    _Visible(),
]
Description = Annotated[str, StringConstraints(max_length=10_000, pattern=_NO_NUL)]
Price = Annotated[
    float,
    Strict(),
    # Not `multipleOf: 0.01` in the document: validators divide floats, and refuse a ninth of the valid prices.
    Field(ge=0, le=9_999_999_999.99, allow_inf_nan=False, description=_PRICE),
    AfterValidator(_two_decimals),
]
Active = Annotated[bool, Strict()]


def _whole_number(value: Any) -> Any:
    # Python also parses `1_000`, `+1` and the digits of other scripts.
    if isinstance(value, str) and not _WHOLE_NUMBER.fullmatch(value):
        raise ValueError("Input should be a whole number, written with 1 to 19 digits")
    return value


def _true_or_false(value: Any) -> Any:
    # Pydantic also parses `1`, `on` and `yes` as true.
    if isinstance(value, str) and value not in ("true", "false"):
        raise ValueError("Input should be true or false")
    return value


def _empty_is_none(value: Any) -> Any:
    return None if value == "" else value


# `Field` comes before the validator: Pydantic enforces bounds after a validator, but does not document them.
ItemId = Annotated[int, Field(ge=1, le=2**63 - 1, examples=[1]), BeforeValidator(_whole_number)]
PageNumber = Annotated[
    int,
    Field(ge=1, description="The number of the page, from 1. Beyond 10,000 items, use `cursor`."),
    BeforeValidator(_whole_number),
]
PerPage = Annotated[
    int, Field(ge=1, le=100, description="The number of items in a page."), BeforeValidator(_whole_number)
]
Search = Annotated[str, StringConstraints(max_length=255, pattern=_NO_NUL)]
Flag = Annotated[bool, BeforeValidator(_true_or_false)]
ActiveFilter = Annotated[
    Flag | None,
    BeforeValidator(_empty_is_none),
    Field(
        description="Only active items (`true`), or only inactive items (`false`).",
        json_schema_extra={"allowEmptyValue": True},
    ),
]

_WHOLE_NUMBER = re.compile(r"[0-9]{1,19}")
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE)


def _with_offset(value: Any) -> Any:
    # Pydantic also parses numbers, dates alone, and times without an offset.
    if isinstance(value, str) and not _RFC_3339.fullmatch(value):
        raise ValueError(
            "Input should be a time of RFC 3339 with an offset, such as 2026-11-22T13:00:00Z; in a URL, write + as %2B"
        )
    return value


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("Input should be a time from the year 1 to the year 9999") from None


Time = Annotated[datetime, AfterValidator(_in_utc), BeforeValidator(_with_offset)]

_EXAMPLE: dict[str, JsonValue] = {
    "name": "Kettle",
    "description": "Boils a litre in two minutes.",
    "price": 34.5,
    "is_active": True,
}
_STORED: dict[str, JsonValue] = {
    "id": 1,
    **_EXAMPLE,
    "created_at": "2026-11-22T13:00:00.123456Z",
    "updated_at": "2026-11-22T13:00:00.123456Z",
}
_ETAG = '"1-1795352400123456"'
_LISTED: dict[str, JsonValue] = {
    "items": [{**_STORED, "etag": _ETAG}],
    "page": 1,
    "per_page": 1,
    "total": 2,
    "total_is_exact": True,
    "pages": 2,
    "next_cursor": "AAAAAAAAAAE_rb7i",
}


EXPORTED = json.dumps({**_STORED, "etag": _ETAG}) + "\n"
"""An example of an export."""


class _RequestBody(BaseModel):
    model_config = ConfigDict(
        str_strip_whitespace=True,
        extra="ignore",
        validate_assignment=False,
        validate_default=False,
        json_schema_extra={"examples": [_EXAMPLE]},
    )


class ItemCreate(_RequestBody):
    """The body that creates an item. White space around texts is removed; unknown fields are ignored."""

    name: Name
    description: Description | None = None
    price: Price | None = None
    is_active: Active = True

    def to_data(self) -> ItemData:
        """Return the content as the dataclass that the code below the routers uses."""
        return ItemData(name=self.name, description=self.description, price=self.price, is_active=self.is_active)


class ItemBatch(BaseModel):
    """The body that creates several items, all or none."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"items": [_EXAMPLE]}]})

    max_json_values: ClassVar = 50_000
    """How many values the document may have, unknown fields included: a hundred for each item."""

    items: Annotated[list[ItemCreate], Field(min_length=1, max_length=500)]


class ItemReplace(ItemCreate):
    """The body that replaces an item. A field that is absent gets its default."""


def _absent() -> Any:
    """Return the default of a field that can be absent, but not null."""
    return None


class ItemUpdate(_RequestBody):
    """The fields to change, at least one. A field that is absent is not changed; null is a value."""

    # Generators of clients do not understand an `anyOf` here that names the fields.
    model_config = ConfigDict(json_schema_extra={"examples": [{"price": 29.95}], "minProperties": 1})

    name: Name = Field(default_factory=_absent)
    description: Description | None = None
    price: Price | None = None
    is_active: Active = Field(default_factory=_absent)

    def to_changes(self) -> dict[str, Any]:
        """Return the fields that were present, by name."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class ItemRead(BaseModel):
    """An item as it is stored."""

    model_config = ConfigDict(json_schema_extra={"examples": [_STORED]})

    id: int
    name: str
    description: str | None
    price: float | None = Field(description=_PRICE)
    is_active: bool
    created_at: datetime
    updated_at: datetime


class ItemInList(ItemRead):
    """An item in a list, with its version."""

    model_config = ConfigDict(json_schema_extra={"examples": _LISTED["items"]})

    etag: str = Field(description="The `ETag` of the item, for `If-Match` and `If-None-Match`.")


class ItemBatchRead(BaseModel):
    """The items that were created, in the order in which they were sent."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": _LISTED["items"]}]})

    items: list[ItemInList]


class ItemList(BaseModel):
    """A page of items, in the order that `sort` names.

    After a cursor, a page can have fewer than `per_page` items although there are more; `next_cursor` continues.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_LISTED]})

    items: list[ItemInList]
    page: int | None = Field(description="The number of the page; null with `cursor`, `ids` and `sort=updated_at`.")
    per_page: int
    total: int | None = Field(description="The number of matches; null with `cursor` and `sort=updated_at`.")
    total_is_exact: bool | None = Field(description="False if `total` is an estimate; null where `total` is.")
    pages: int | None = Field(description="The number of pages, from `total`; null where `page` is.")
    next_cursor: str | None = Field(description="The cursor of the next page; null at the end.")
