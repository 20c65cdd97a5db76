"""${message}.

Revision: ${up_revision}
Revises: ${down_revision | comma,n}
"""

from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}

# Whether the release before goes on serving, reading and writing, while this is applied and after it.
# Where it does not, the service has to be stopped meanwhile: see docs/operations/migrations.md.
runs_beside_previous_release = True

# Rules of tests/migrations/lint.py that this revision may break, each with the reason why that does no harm.
lint_waivers: dict[str, str] = {}


def upgrade() -> None:
    """${message}."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Undo it."""
    ${downgrades if downgrades else "pass"}
