"""The project's revisions, from the first to the newest, and what they declare."""

from functools import cache

from alembic.script import Script, ScriptDirectory

from tests.migrations.alembic import succeed
from tests.paths import ROOT

_scripts = ScriptDirectory(str(ROOT / "migrations"))

HEADS = _scripts.get_heads()
REVISIONS = [script.revision for script in _scripts.walk_revisions()][::-1]


def script(revision: str) -> Script:
    """The revision's script."""
    found = _scripts.get_revision(revision)
    assert found is not None
    return found


def before(revision: str) -> str:
    """The revision before this one, or `base`."""
    position = REVISIONS.index(revision)
    return REVISIONS[position - 1] if position else "base"


def waivers(revision: str) -> dict[str, str]:
    """The lint rules that the revision may break, and why."""
    found: dict[str, str] = getattr(script(revision).module, "lint_waivers", {})
    return found


@cache
def sql(revision: str) -> str:
    """The SQL of the revision, as `--sql` writes it."""
    return succeed(None, "upgrade", f"{before(revision)}:{revision}", "--sql").stdout
