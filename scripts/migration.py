"""Writes the migration that creates the table of a new resource."""

import json
import re
from pathlib import Path

from migrations.revision_ids import next_id
from scripts import project, templates
from scripts.names import Name
from scripts.rendering import render

_TEMPLATE = '''"""Create the table of the {texts}.

Revision: {revision}
Revises: {down_revision}
"""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{down_revision}"
runs_beside_previous_release = True

{constants}
def upgrade() -> None:
    """Create the table, its indexes and its functions."""
{upgrade}


def downgrade() -> None:
    """Drop the table and its functions."""
{downgrade}
'''


def next_revision(root: Path) -> tuple[str, str]:
    """The id of a new revision, and the id of the newest one, which it revises.

    Raises:
        RefusedError: There is not exactly one newest revision.
    """
    texts = [path.read_text("utf-8") for path in root.glob("migrations/versions/*.py")]
    ids = {found[1] for text in texts if (found := re.search(r'^revision(?:: str)? = "(\w+)"', text, re.MULTILINE))}
    revised = {found for text in texts for found in re.findall(r'^down_revision\b.*"(\w+)"', text, re.MULTILINE)}
    heads = sorted(ids - revised)
    if len(heads) != 1:
        raise project.RefusedError(f"There are {len(heads)} newest revisions in migrations/versions: merge them first.")
    try:
        return next_id(heads[0]), heads[0]
    except ValueError as error:
        raise project.RefusedError(f"{error}: rename it.") from None


def path(root: Path, revision: tuple[str, str], name: Name) -> Path:
    """The file of the migration."""
    return root / "migrations" / "versions" / f"{revision[0]}_create_{name.plural}.py"


def write(root: Path, revision: tuple[str, str], name: Name) -> Path:
    """Write the migration. The model of the table must exist already."""
    table = name.forms()["table"]
    found = json.loads(project.run(root, root / ".venv" / "bin" / "python", "-m", "scripts.table_operations", table))
    functions = {render(key, name): render(sql, name) for key, sql in templates.functions().items()}
    own = [signature for signature in found["functions"] if signature.partition("(")[0] in functions]
    constants = [_constant(signature, functions[_function(signature)]) for signature in own]
    steps = [found["steps"][0].rstrip(), *(f"    op.execute(_{_function(signature).upper()})" for signature in own)]
    steps += [step.rstrip() for step in found["steps"][1:]]
    text = _TEMPLATE.format(
        texts=name.forms()["texts"],
        revision=revision[0],
        down_revision=revision[1],
        constants="\n".join(constants),
        upgrade="\n".join(step.strip("\n") for step in steps),
        downgrade="\n".join(
            [*(f'    op.execute("DROP FUNCTION {signature}")' for signature in own), f'    op.drop_table("{table}")']
        ),
    )
    file = path(root, revision, name)
    project.write({file: text})
    return file


def _constant(signature: str, sql: str) -> str:
    raw = "r" if "\\" in sql else ""
    return f'_{_function(signature).upper()} = {raw}"""\n{sql.strip()}\n"""\n'


def _function(signature: str) -> str:
    return signature.partition("(")[0]
