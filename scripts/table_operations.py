"""Prints, as JSON, the operations of a migration that creates a new table: `python -m scripts.table_operations TABLE`.

It runs in the environment of the project: the model of the table is imported.
"""

import json
import sys

from alembic.autogenerate import render_python_code
from alembic.migration import MigrationContext
from alembic.operations.ops import CreateIndexOp, CreateTableOp, MigrateOperation, UpgradeOps
from sqlalchemy import Index
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex

from app.models import Base


def operations(name: str) -> dict[str, object]:
    """The operations, as `alembic revision --autogenerate` writes them.

    An index of trigrams is created only where the extension is: it is a statement of SQL.
    """
    table = Base.metadata.tables[name]
    indexes = sorted(table.indexes, key=lambda index: str(index.name))
    on_trigrams = [index for index in indexes if str(index.name).endswith("_trgm")]
    others = [index for index in indexes if index not in on_trigrams]
    created = CreateTableOp.from_table(table)
    created.info = {}
    steps: list[MigrateOperation] = [created, *map(CreateIndexOp.from_index, others)]
    return {
        "steps": [_rendered(step) for step in steps],
        "on_trigrams": [_sql(index) for index in on_trigrams],
        "functions": table.info.get("functions", ()),
    }


def _rendered(step: MigrateOperation) -> str:
    context = MigrationContext.configure(dialect_name="postgresql")
    lines = render_python_code(UpgradeOps(ops=[step]), migration_context=context).splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))


def _sql(index: Index) -> str:
    return str(CreateIndex(index).compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(operations(sys.argv[1])))
