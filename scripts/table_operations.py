"""Prints, as JSON, the operations of a migration that creates a new table: `python -m scripts.table_operations TABLE`.

It runs in the environment of the project: the model of the table is imported.
"""

import json
import sys

from alembic.autogenerate import render_python_code
from alembic.migration import MigrationContext
from alembic.operations.ops import CreateIndexOp, CreateTableOp, MigrateOperation, UpgradeOps

from app.models import Base


def operations(name: str) -> dict[str, object]:
    """The operations, as `alembic revision --autogenerate` writes them."""
    table = Base.metadata.tables[name]
    indexes = sorted(table.indexes, key=lambda index: str(index.name))
    created = CreateTableOp.from_table(table)
    created.info = {}
    steps: list[MigrateOperation] = [created, *map(CreateIndexOp.from_index, indexes)]
    return {
        "steps": [_rendered(step) for step in steps],
        "functions": table.info.get("functions", ()),
    }


def _rendered(step: MigrateOperation) -> str:
    context = MigrationContext.configure(dialect_name="postgresql")
    lines = render_python_code(UpgradeOps(ops=[step]), migration_context=context).splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(operations(sys.argv[1])))
