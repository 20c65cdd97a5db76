"""Runs squawk, a linter of migrations, on statements."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_PROGRAM = Path(sys.executable).with_name("squawk")

_OLDEST_POSTGRESQL = "15"

_EXCLUDED = (
    # The session of every migration sets these timeouts.
    "require-lock-timeout", "require-statement-timeout",
    # The rules of tests/migrations/lint.py know the tables that a revision creates, and what earlier ones validated.
    "require-concurrent-index-creation", "require-concurrent-index-deletion", "require-concurrent-reindex",
    "constraint-missing-not-valid", "adding-foreign-key-constraint", "disallowed-unique-constraint",
    "adding-not-nullable-field", "adding-required-field", "adding-serial-primary-key-field", "changing-column-type",
    # migrations.indexes leaves the transaction, and may be run again.
    "ban-concurrent-index-creation-in-transaction", "prefer-robust-stmts",
    # These are about the choice of types and names, which hurts no running service.
    "ban-char-field", "identifier-too-long", "prefer-bigint-over-int", "prefer-bigint-over-smallint",
    "prefer-identity", "prefer-text-field", "prefer-timestamp-tz", "require-enum-value-ordering",
)  # fmt: skip

_INCLUDED = (
    "ban-alter-database-options", "ban-alter-policy-condition", "ban-alter-policy-roles", "ban-alter-role-options",
    "ban-alter-row-level-security", "ban-alter-system-options", "ban-create-policy", "ban-disable-trigger",
    "ban-drop-policy", "ban-drop-trigger", "ban-replace-view-function", "ban-replica-identity", "ban-revoke",
)  # fmt: skip
"""Rules that squawk does not apply unless it is told to."""


def findings(statements: Sequence[str]) -> list[tuple[int, str, str]]:
    """What squawk finds: the position of the statement, the name of the rule, and what the rule says."""
    first_lines, lines = [], 1
    for statement in statements:
        first_lines.append(lines)
        lines += statement.count("\n") + 1
    done = subprocess.run(
        [
            _PROGRAM, "--reporter=json", "--assume-in-transaction", f"--pg-version={_OLDEST_POSTGRESQL}",
            *(f"--exclude={rule}" for rule in _EXCLUDED), *(f"--include={rule}" for rule in _INCLUDED),
        ],
        input="".join(f"{statement};\n" for statement in statements),
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    # squawk counts lines from 0.
    return [
        (
            max(place for place, line in enumerate(first_lines) if line <= found["line"] + 1),
            found["rule_name"],
            " ".join(filter(None, (found["message"], found["help"]))),
        )
        for found in json.loads(done.stdout)
    ]
