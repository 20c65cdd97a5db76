"""Which objects of the database `alembic check` and `alembic revision --autogenerate` compare with the models.

Other services, extensions and DBAs may have tables in the same schema, and indexes on the service's own tables.
An index or constraint of the service has a name of the models' naming convention.
"""

from collections.abc import Callable, MutableMapping
from typing import Any, Literal

from app.models import Base

_PREFIXES = {"index": ("ix", "uq"), "unique_constraint": ("uq",), "foreign_key_constraint": ("fk",)}
_TRIGRAM_INDEX_SUFFIX = "_trgm"
"""The end of the name of each index that needs the extension pg_trgm."""


def include_name(
    name: str | None,
    type_: Literal["schema", "table", "column", "index", "unique_constraint", "foreign_key_constraint"],
    parent_names: MutableMapping[Literal["schema_name", "table_name", "schema_qualified_table_name"], str | None],
) -> bool:
    """Whether an object of the database is compared. Alembic asks for each one."""
    if type_ == "table":
        return parent_names["schema_qualified_table_name"] in Base.metadata.tables
    prefixes = [f"{prefix}_{parent_names.get('table_name')}_" for prefix in _PREFIXES.get(type_, ())]
    return not prefixes or str(name).startswith(tuple(prefixes))


def include_object(*, has_trigrams: bool) -> Callable[..., bool]:
    """A function that says whether a model's object is compared. Without pg_trgm the trigram index is not."""

    def include(_object: Any, name: str | None, *_: Any) -> bool:
        return has_trigrams or not str(name).endswith(_TRIGRAM_INDEX_SUFFIX)

    return include
