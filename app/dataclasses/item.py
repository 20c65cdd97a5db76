"""An item, and what a client may say of one."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(slots=True, kw_only=True)
class ItemData:
    """What a client says of an item."""

    name: str
    description: str | None = None
    price: float | None = None
    """In the currency's major unit, two decimals, exact up to 9,999,999,999.99."""

    is_active: bool = True

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, as the columns are named."""
        return {
            "name": self.name,
            "description": self.description,
            "price": self.price,
            "is_active": self.is_active,
        }


@dataclass(slots=True)
class Item:
    """An item as it is stored. The order of the fields is that of the columns read."""

    id: int
    name: str
    description: str | None
    price: float | None
    """In the currency's major unit, two decimals, exact up to 9,999,999,999.99."""

    is_active: bool
    created_at: datetime
    updated_at: datetime
    """Moves forward with every write, by a microsecond at least: it tells the versions of an item apart."""

    def to_dict(self) -> dict[str, Any]:
        """The fields by name. orjson renders this, its making included, in two thirds of the time."""
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
    """Some items in the order of their ids."""

    items: list[Item]
    has_more: bool
    """Whether items follow the last one."""

    total: int | None
    """Matches in all, None where it was not asked for."""

    total_is_exact: bool | None
    """False where `total` is the planner's estimate."""
