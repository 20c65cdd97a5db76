"""Finds statements of a revision that lock a table in use for long, or that the release before cannot run beside.

Our own rules know which tables the revision creates and what earlier revisions have validated. squawk, which parses
SQL, knows what removes or renames something. A statement that neither knows is refused. A revision can waive a rule,
with the reason why its statement is harmless.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from app.health.schema_state import VERSION_TABLE
from migrations import advisory_lock, first_migration, session, version_table
from tests.migrations import squawk
from tests.migrations.statements import NAME, expand, plain_name, split

_CHANGED_ROWS = re.compile(
    rf"(?:(?<!FOR )(?<!KEY )(?<!DO )(?<!THEN )UPDATE|DELETE FROM|INSERT INTO|MERGE INTO)\b (?:ONLY )?({NAME})"
)
_LOCKED_ROWS = re.compile(r"\bFOR (?:NO KEY UPDATE|UPDATE|SHARE|KEY SHARE)\b")

_CALL = re.compile(r'((?:[\w.]|"[^"]*")+) ?\(')
_HARMLESS_CALLS = frozenset(
    {
        "ALL", "AND", "ANY", "ARRAY_AGG", "AS", "BY", "CAST", "COALESCE", "CONCAT_WS", "COUNT", "CURRENT_DATABASE",
        "EXISTS", "FORMAT", "FROM", "HAS_SCHEMA_PRIVILEGE", "IN", "LOWER", "MAX", "MIN", "NOT", "NOW", "NULLIF", "ON",
        "CURRENT_SETTING", "OR", "QUOTE_IDENT", "QUOTE_LITERAL", "REPLACE", "SELECT", "SET_CONFIG", "STRING_AGG",
        "TO_REGCLASS", "UPPER", "VALUES", "WHERE",
    }
)  # fmt: skip
"""Words before a bracket that are no functions, and functions that change nothing but a setting of the session."""

_SAFE = re.compile(
    rf"SELECT\b|WITH\b|(?:UPDATE|DELETE|INSERT|MERGE)\b"  # what these change and call is checked
    rf"|CREATE (?:TEMP |TEMPORARY |UNLOGGED )?TABLE (?:IF NOT EXISTS )?{NAME} ?\("
    rf"|CREATE (?:UNIQUE )?INDEX\b|DROP INDEX\b|REINDEX\b"
    rf"|CREATE (?:OR REPLACE )?(?:AGGREGATE|COLLATION|DOMAIN|EXTENSION|FUNCTION|OPERATOR|PROCEDURE|SCHEMA|SEQUENCE"
    rf"|STATISTICS|TYPE|VIEW)\b"
    rf"|ALTER INDEX (?:IF EXISTS )?{NAME} (?:SET|RESET) \(|ALTER TYPE {NAME} ADD VALUE\b"
    rf"|ANALYZE\b|COMMENT ON\b|GRANT\b"
)
"""Statements that lock no table, or only for a moment, unless a rule finds more in them."""

_SAFE_ACTION = re.compile(
    rf"ADD\b|VALIDATE CONSTRAINT\b|(?:SET|RESET) \("
    rf"|ALTER (?:COLUMN )?{NAME} (?:SET (?:DEFAULT|NOT NULL|STATISTICS|STORAGE|COMPRESSION)\b|(?:SET|RESET) \()"
)
"""The same for the actions of ALTER TABLE."""

_WEAK_ACTION = rf"VALIDATE |SET \(|RESET \(|ATTACH |ALTER (?:COLUMN )?{NAME} SET STATISTICS"
_STRONG_LOCK = re.compile(
    rf"ALTER TABLE (?:IF EXISTS )?(?:ONLY )?({NAME}) (?!{_WEAK_ACTION})"
    rf"|(?:DROP TABLE (?:IF EXISTS )?|TRUNCATE (?:TABLE )?|LOCK (?:TABLE )?)(?:ONLY )?({NAME})"
)
"""Statements whose lock blocks writers, or readers too."""

_REFERENCES = re.compile(rf"\bREFERENCES ({NAME})")

_BEFORE = advisory_lock.LOCK_OR_FAIL, session.READ_COMMITTED, version_table.TAKE_OVER, first_migration.CHECK_DATABASE
_ENVIRONMENT = frozenset(statement for sql in _BEFORE for statement in split(sql))
"""What `migrations.command` writes before the first revision."""

_OLD_TABLE_FOLLOWS = split(version_table.old_table_follows([]))[0].partition("DELETE")[0]
"""The beginning of what it writes after each revision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A statement and the rule that it breaks."""

    rule: str
    statement: str
    advice: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.statement[:120]}. {self.advice}"


RULES = {
    "index-not-concurrent": "Writers wait until the index is created or dropped: use migrations.indexes.",
    "rewrite": "The table is rewritten under a lock that blocks readers: add a column, fill it, then use it instead.",
    "not-null-unchecked": "Readers wait for a full scan: validate a CHECK (… IS NOT NULL) in an earlier revision.",
    "constraint-validated": "All rows are read while others wait: add it NOT VALID, VALIDATE it alone in a revision.",
    "constraint-unique": "An index is created while readers wait: create it concurrently, then add it USING INDEX.",
    "column-filled": "A new NOT NULL column needs a constant default, else every row must be written.",
    "exclusive": "Readers are blocked until the statement is finished.",
    "partition-unchecked": "All rows of the partition, or all readers of the table, wait: create the table, validate a "
    "CHECK of its bounds in an earlier revision, then attach it.",
    "rows-changed": "All rows stay locked until the last is changed: change them in batches, outside of migrations.",
    "function-called": "It cannot be checked what the function changes: write its statements into the revision.",
    "two-tables": "While it waits for the second table, it blocks the first: change each in a revision of its own.",
    "half-committed": "A concurrent statement commits by itself: beside it, every statement must be safe to run again.",
    "dynamic-sql": "Dynamic SQL cannot be checked.",
    "unknown-statement": "It is not known which locks this takes: find out, and waive the rule with what you found.",
}
"""What is wrong with a statement that breaks the rule, and what to do instead. squawk has more rules of its own."""


@dataclass(slots=True)
class Linter:
    """Checks the revisions in their order, and remembers the constraints of the earlier ones."""

    validated: dict[tuple[str, str], str] = field(default_factory=dict)
    """The columns of validated IS NOT NULL constraints, by table and constraint."""

    pending: dict[tuple[str, str], str] = field(default_factory=dict)
    """The same for constraints that were added NOT VALID and are not validated yet."""

    checked: set[str] = field(default_factory=set)
    """Tables of which an earlier revision has validated a constraint."""

    def findings(self, sql: str) -> list[Finding]:
        """The statements of one revision that break a rule."""
        whole = [statement for statement in split(sql) if not _is_alembics(statement)]
        statements = [part for statement in whole for part in expand(statement)]
        new = {plain_name(name) for statement in statements for name in _created(statement)}
        replaced = self._redundant_checks(statements)
        found = [(place, rule, RULES[rule]) for place, rule in self._own(statements, new)]
        parsed = [statement if _is_for_squawk(statement, new) else "SELECT 1" for statement in statements]
        found += [
            (place, rule, message)
            for place, rule, message in squawk.findings(parsed)
            if not (rule == "ban-drop-constraint" and statements[place] in replaced)
        ]
        known = {place for place, _, _ in found}
        found += [
            (place, "unknown-statement", RULES["unknown-statement"])
            for place, statement in enumerate(statements)
            if place not in known and statement not in replaced and not _is_known(statement, new)
        ]
        return [Finding(rule=rule, statement=statements[place], advice=advice) for place, rule, advice in sorted(found)]

    def _own(self, statements: list[str], new: set[str]) -> Iterator[tuple[int, str]]:
        for place, statement in enumerate(statements):
            for rule in self._broken(statement, new):
                yield place, rule
        if any(re.search(r"\bCONCURRENTLY\b", statement) for statement in statements):
            for place, statement in enumerate(statements):
                if not re.search(r"\bCONCURRENTLY\b", statement) and not statement.startswith("SELECT SET_CONFIG("):
                    yield place, "half-committed"
        locks = [_strongly_locked(statement) - new for statement in statements]
        # A lock is held until the end of the revision, also while VALIDATE reads all rows.
        for place, statement in enumerate(statements):
            if any(locks[:place]) and re.search(r" VALIDATE CONSTRAINT\b", statement):
                yield place, "constraint-validated"
        all_locked = set[str]().union(*locks)
        if all_locked and all_locked not in locks:
            yield max(place for place, tables in enumerate(locks) if tables), "two-tables"

    def _broken(self, statement: str, new: set[str]) -> Iterator[str]:
        yield from _broken_by_expressions(statement, new)
        yield from _broken_by_index(statement, new)
        if match := re.match(rf"ALTER TABLE (?:IF EXISTS )?(?:ONLY )?({NAME}) (.*)", statement, re.DOTALL):
            table = plain_name(match[1])
            if table not in new:
                yield from self._broken_by_action(table, match[2])
            if (attached := re.match(rf"ATTACH PARTITION ({NAME})", match[2])) and plain_name(
                attached[1]
            ) not in new | self.checked:
                yield "partition-unchecked"
        parent = re.match(rf"CREATE TABLE .*?{NAME} PARTITION OF ({NAME})", statement)
        if parent and plain_name(parent[1]) not in new:
            yield "partition-unchecked"
        if re.match(
            r"(?:VACUUM (?:\([^)]*)?\bFULL\b|CLUSTER\b|LOCK\b|TRUNCATE\b|REFRESH MATERIALIZED VIEW (?!CONCURRENTLY\b))",
            statement,
        ):
            yield "exclusive"

    def _broken_by_action(self, table: str, action: str) -> Iterator[str]:
        if re.match(r"ADD (?:CONSTRAINT|CHECK|FOREIGN|UNIQUE|PRIMARY|EXCLUDE)\b", action):
            yield from self._broken_by_constraint(table, action)
        elif re.match(r"ADD\b", action):
            yield from _broken_by_column(action)
        elif match := re.match(rf"VALIDATE CONSTRAINT ({NAME})", action):
            key = table, plain_name(match[1])
            self.checked.add(table)
            if key in self.pending:
                self.validated[key] = self.pending.pop(key)
        elif match := re.match(rf"ALTER (?:COLUMN )?({NAME}) (.*)", action, re.DOTALL):
            not_null = {(table, column) for (table, _), column in self.validated.items()}
            if re.match(r"(?:SET DATA )?TYPE\b|SET EXPRESSION\b", match[2]):
                yield "rewrite"
            elif re.match(r"SET NOT NULL", match[2]) and (table, plain_name(match[1])) not in not_null:
                yield "not-null-unchecked"
        elif re.match(r"SET (?:TABLESPACE|LOGGED|UNLOGGED|ACCESS METHOD)\b", action):
            yield "rewrite"

    def _broken_by_constraint(self, table: str, action: str) -> Iterator[str]:
        if re.search(r"\bUSING INDEX\b", action):
            return
        if re.search(r"\b(?:UNIQUE|PRIMARY KEY|EXCLUDE)\b", action):
            yield "constraint-unique"
        elif not re.search(r"\bNOT VALID\b", action):
            yield "constraint-validated"
        elif match := re.match(rf"ADD CONSTRAINT ({NAME}) CHECK \(+\s*({NAME}) IS NOT NULL\s*\)+ NOT VALID", action):
            # It counts after a later revision has validated it.
            self.pending[table, plain_name(match[1])] = plain_name(match[2])

    def _redundant_checks(self, statements: list[str]) -> set[str]:
        """The statements that drop a check of IS NOT NULL, after one that sets its column NOT NULL."""
        dropped = set()
        for (table, constraint), column in self.validated.items():
            sets = re.compile(rf'ALTER TABLE (?:\w+\.)?"?{table}"? ALTER COLUMN "?{column}"? SET NOT NULL$')
            drops = re.compile(rf'ALTER TABLE (?:\w+\.)?"?{table}"? DROP CONSTRAINT "?{constraint}"?$')
            earlier = [place for place, statement in enumerate(statements) if sets.match(statement)]
            dropped |= {s for place, s in enumerate(statements) if drops.match(s) and earlier and place > earlier[0]}
        return dropped


def complaints(findings: list[Finding], waivers: Mapping[str, str]) -> list[str]:
    """The complaints about a revision: findings that are not waived, and waivers without need or reason."""
    broken = {finding.rule for finding in findings}
    return [
        *(str(finding) for finding in findings if finding.rule not in waivers),
        *(f"{rule} is waived but not broken." for rule in waivers if rule not in broken),
        *(
            f"{rule} is waived without a sentence that gives the reason."
            for rule, why in waivers.items()
            if len(why.split()) < 5
        ),
    ]


def _broken_by_expressions(statement: str, new: set[str]) -> Iterator[str]:
    """Rules about what a query, or an expression in a DO block, changes and calls."""
    if re.match(r"EXECUTE\b", statement):
        yield "dynamic-sql"
    if re.match(r"CALL\b", statement):
        yield "function-called"
    if not re.match(r"(?:SELECT|WITH|UPDATE|DELETE|INSERT|MERGE|VALUES)\b", statement):
        return
    text = re.sub(r"'(?:[^']|'')*'", "''", statement)
    if re.search(r"\bEXECUTE\b", text):
        yield "dynamic-sql"
    changed = {plain_name(name) for name in _CHANGED_ROWS.findall(text)}
    if changed - new or _LOCKED_ROWS.search(text):
        yield "rows-changed"
    if {name for name in _CALL.findall(text) if plain_name(name) not in changed} - _HARMLESS_CALLS:
        yield "function-called"


def _broken_by_index(statement: str, new: set[str]) -> Iterator[str]:
    made = re.match(rf"CREATE (?:UNIQUE )?INDEX (?!CONCURRENTLY\b).*?\bON (?:ONLY )?({NAME})", statement, re.DOTALL)
    changed = re.match(r"DROP INDEX (?!CONCURRENTLY\b)|REINDEX\b(?!.*\bCONCURRENTLY\b)", statement)
    if (made and plain_name(made[1]) not in new) or changed:
        yield "index-not-concurrent"


def _broken_by_column(action: str) -> Iterator[str]:
    if re.search(r"\b(?:BIG|SMALL)?SERIAL\b", action):
        yield "rewrite"
    elif re.search(r"\bNOT NULL\b", action) and not re.search(r"\bDEFAULT\b", action):
        yield "column-filled"
    if re.search(r"\b(?:UNIQUE|PRIMARY KEY)\b", action):
        yield "constraint-unique"
    if re.search(r"\b(?:CHECK|REFERENCES)\b", action):
        yield "constraint-validated"


def _is_for_squawk(statement: str, new: set[str]) -> bool:
    """Whether squawk can judge it: a statement of SQL, and not about a table that nobody uses yet."""
    altered = re.match(rf"(?:ALTER|DROP) TABLE (?:IF EXISTS )?(?:ONLY )?({NAME})", statement)
    return not re.match(r"(?:SELECT|EXECUTE)\b", statement) and not (altered and plain_name(altered[1]) in new)


def _is_known(statement: str, new: set[str]) -> bool:
    if match := re.match(rf"ALTER TABLE (?:IF EXISTS )?(?:ONLY )?({NAME}) (.*)", statement, re.DOTALL):
        attached = re.match(r"ATTACH PARTITION\b", match[2])  # checked by a rule
        return plain_name(match[1]) in new or bool(attached or _SAFE_ACTION.match(match[2]))
    dropped = re.match(rf"DROP TABLE (?:IF EXISTS )?({NAME})$", statement)
    created_part = re.match(rf"CREATE TABLE .*?{NAME} PARTITION OF\b", statement)
    return bool(_SAFE.match(statement) or created_part or (dropped and plain_name(dropped[1]) in new))


def _strongly_locked(statement: str) -> set[str]:
    match = _STRONG_LOCK.match(statement)
    locked = set(filter(None, match.groups())) if match else set()
    if re.match(r"CREATE .*?TABLE\b|ALTER TABLE .* ADD\b", statement):
        locked |= set(_REFERENCES.findall(statement))
    return {plain_name(name) for name in locked}


def _created(statement: str) -> list[str]:
    """The table that it creates. With IF NOT EXISTS, it may be one that exists."""
    return re.findall(rf"^CREATE (?:TEMP |TEMPORARY |UNLOGGED )?TABLE (?!IF NOT EXISTS )({NAME})", statement)


def _is_alembics(statement: str) -> bool:
    """Whether Alembic or the environment adds this statement around the revision's own."""
    return bool(
        statement in ("BEGIN", "COMMIT")
        or statement in _ENVIRONMENT
        or statement.startswith(_OLD_TABLE_FOLLOWS)
        or re.match(rf"(?:INSERT INTO|UPDATE|DELETE FROM|CREATE TABLE) {VERSION_TABLE.upper()}\b", statement)
    )
