"""A sample, and a page of samples."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any


@dataclass(slots=True)
class Sample:
    """A sample as it is stored. The fields are in the order in which the columns are read."""

    id: int
    name: str
    description: str | None
    amount: float | None
    created_at: datetime
    updated_at: datetime

    def to_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


@dataclass(slots=True, kw_only=True)
class SamplePage:
    """Some samples in the order of their ids, and how many there are."""

    samples: list[Sample]
    has_more: bool
    total: int | None
    total_is_exact: bool | None
