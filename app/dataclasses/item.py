"""An item, the fields that a client sets, and a page of items."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(slots=True, kw_only=True)
class ItemData:
    """The fields of an item that a client sets."""

    name: str
    description: str | None = None
    price: float | None = None
    """In the currency's major unit, two decimals, exact up to 9,999,999,999.99."""

    is_active: bool = True

    def to_dict(self) -> dict[str, Any]:
        """The fields by name; the columns have the same names."""
        return {
            "name": self.name,
            "description": self.description,
            "price": self.price,
            "is_active": self.is_active,
        }


@dataclass(slots=True)
class Item:
    """An item as it is stored. The fields are in the order in which the columns are read."""

    id: int
    name: str
    description: str | None
    price: float | None
    """In the currency's major unit, two decimals, exact up to 9,999,999,999.99."""

    is_active: bool
    created_at: datetime
    updated_at: datetime
    """The version: later after every write, by at least a microsecond."""

    def to_dict(self) -> dict[str, Any]:
        """The fields by name. To build and render this dict takes orjson two thirds of the time of the dataclass."""
        return {
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "price": self.price,
            "is_active": self.is_active,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
        }


@dataclass(slots=True, kw_only=True)
class ItemPage:
    """Some items in the order of a list, and how many match in all."""

    items: list[Item]
    has_more: bool
    """Whether more items match after the last one."""

    total: int | None
    """How many items match in all; None after a cursor and in the feed of changes."""

    total_is_exact: bool | None
    """False if `total` is the planner's estimate; None where `total` is."""


@dataclass(slots=True, kw_only=True)
class ItemChunk:
    """Some items in the order of their ids, and where the next ones begin."""

    rows: list[Item]
    position: int | None
    """The id after which the next chunk begins; None after the last one."""
