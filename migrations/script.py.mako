"""${message}.

Revision: ${up_revision}
Revises: ${down_revision | comma,n}
"""
<%!
    def statements(text):
        """The operations without the comments that Alembic puts around them."""
        return "\n".join(line for line in text.splitlines() if not line.strip().startswith("# ###")).strip()
%>
import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}

# Whether the release before can read and write while this revision is applied and afterwards.
# If it cannot, the service must be stopped for it: see docs/operations/migrations.md.
runs_beside_previous_release = True

# Rules of tests/migrations/lint.py and squawk that this revision may break, each with the reason why it is harmless.
lint_waivers: dict[str, str] = {}


def upgrade() -> None:
    """${message}."""
    ${statements(upgrades) if upgrades else "pass"}


def downgrade() -> None:
    """Undo the upgrade."""
    ${statements(downgrades) if downgrades else "pass"}
