"""Dumps the schema of a database, to compare it."""

import subprocess

from app.embedded_postgres.programs import find_binaries
from tests.cluster import as_role


def dump(url: str) -> str:
    """The schema as SQL, without owners and privileges."""
    command = [str(find_binaries() / "pg_dump"), "--schema-only", "--no-owner", "--no-privileges"]
    done = subprocess.run(
        [*command, "--dbname", as_role(url, "postgres")], text=True, capture_output=True, check=True, timeout=60
    )
    # Newer releases print a random key in the first and last line.
    return "\n".join(line for line in done.stdout.splitlines() if not line.startswith(("\\restrict", "\\unrestrict")))
