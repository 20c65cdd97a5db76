"""What a client sends and gets of items."""

import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, Strict, StringConstraints

from app.dataclasses.item import ItemData

_NO_NUL = r"^[^\x00]*$"
_VISIBLE = r"^[^\x00]*[^\s\x00][^\x00]*$"
"""Something beside white space, and no NUL: PostgreSQL cannot store one."""


def _two_decimals(price: float) -> float:
    exponent = Decimal(repr(price)).normalize().as_tuple().exponent
    if isinstance(exponent, int) and exponent < -2:
        raise ValueError("A price has at most two decimals")
    return price + 0.0  # makes -0.0 the 0.0 that it means


Name = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=_VISIBLE)]
Description = Annotated[str, StringConstraints(max_length=10_000, pattern=_NO_NUL)]
Price = Annotated[
    float,
    Strict(),
    Field(ge=0, le=9_999_999_999.99, allow_inf_nan=False, json_schema_extra={"multipleOf": 0.01}),
    AfterValidator(_two_decimals),
]
Active = Annotated[bool, Strict()]


def _whole_number(value: Any) -> Any:
    # Python reads `1_000`, `+1` and digits of other scripts as numbers, too.
    if isinstance(value, str) and not re.fullmatch(r"[0-9]{1,19}", value):
        raise ValueError("Input should be a whole number")
    return value


def _true_or_false(value: Any) -> Any:
    # Pydantic reads `1`, `on` and `yes` as true, too.
    if isinstance(value, str) and value not in ("true", "false"):
        raise ValueError("Input should be true or false")
    return value


def _empty_is_none(value: Any) -> Any:
    return None if value == "" else value


# The bounds stand first: behind a validator Pydantic keeps them, but documents them under names that nobody reads.
ItemId = Annotated[int, Field(ge=1, le=2**63 - 1, examples=[1]), BeforeValidator(_whole_number)]
PageNumber = Annotated[
    int,
    Field(ge=1, description="Counted from 1. Go on with `cursor` past 10,000 items."),
    BeforeValidator(_whole_number),
]
PerPage = Annotated[int, Field(ge=1, le=100, description="Items in one page."), BeforeValidator(_whole_number)]
Search = Annotated[str, StringConstraints(max_length=255, pattern=_NO_NUL)]
Flag = Annotated[bool, BeforeValidator(_true_or_false)]
ActiveFilter = Annotated[
    Flag | None, BeforeValidator(_empty_is_none), Field(description="Only active items, or only inactive ones.")
]

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
_LISTED: dict[str, JsonValue] = {
    "items": [_STORED],
    "page": 1,
    "per_page": 1,
    "total": 2,
    "total_is_exact": True,
    "pages": 2,
    "next_cursor": "AAAAAAAAAAE_rb7i",
}


class _Body(BaseModel):
    model_config = ConfigDict(
        str_strip_whitespace=True,
        extra="ignore",
        validate_assignment=False,
        validate_default=False,
        json_schema_extra={"examples": [_EXAMPLE]},
    )


class ItemCreate(_Body):
    """A new item. White space around `name` and `description` is removed; unknown fields are ignored."""

    name: Name
    description: Description | None = None
    price: Price | None = None
    is_active: Active = True

    def to_data(self) -> ItemData:
        """The same, as the inside of the service works with it."""
        return ItemData(name=self.name, description=self.description, price=self.price, is_active=self.is_active)


class ItemReplace(ItemCreate):
    """All that a client may say of an item. A field that is left out becomes its default."""


def _absent() -> Any:
    """The default of a field that may be left out, but may not be null."""
    return None


class ItemUpdate(_Body):
    """The fields to change, at least one. A field that is left out stays as it is; null is a value."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"price": 29.95}],
            "anyOf": [{"required": [name]} for name in ("name", "description", "price", "is_active")],
        }
    )

    name: Name = Field(default_factory=_absent)
    description: Description | None = None
    price: Price | None = None
    is_active: Active = Field(default_factory=_absent)

    def to_changes(self) -> dict[str, Any]:
        """The fields that were sent, by name."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class ItemRead(BaseModel):
    """An item."""

    model_config = ConfigDict(json_schema_extra={"examples": [_STORED]})

    id: int
    name: str
    description: str | None
    price: float | None = Field(description="In the currency's major unit, with at most two decimals.")
    is_active: bool
    created_at: datetime
    updated_at: datetime


class ItemList(BaseModel):
    """Some items in the order of their ids."""

    model_config = ConfigDict(json_schema_extra={"examples": [_LISTED]})

    items: list[ItemRead]
    page: int | None = Field(description="The page, null after a cursor.")
    per_page: int
    total: int | None = Field(description="Matches in all, null after a cursor.")
    total_is_exact: bool | None = Field(description="False where `total` is an estimate; `count=exact` counts.")
    pages: int | None = Field(description="Pages in all by `total`, null after a cursor.")
    next_cursor: str | None = Field(description="Where the next page begins, null at the end.")
