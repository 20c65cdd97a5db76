"""Finds statements of a revision that would rewrite a table in use or lock it for long, in the SQL of `--sql`.

The linter matches patterns; it does not parse SQL. It refuses dynamic SQL, which it cannot
read. A revision can waive a rule, with the reason why its statement is harmless.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_NAME = r'(?:"[^"]+"|\w+)(?:\.(?:"[^"]+"|\w+))?'
_VOLATILE = r"\b(?:RANDOM|CLOCK_TIMESTAMP|TIMEOFDAY|GEN_RANDOM_UUID|UUID_GENERATE_\w+|NEXTVAL)\s*\("
_GENERATED = r"\bGENERATED ALWAYS AS \(|\bGENERATED (?:ALWAYS|BY DEFAULT) AS IDENTITY|\b(?:BIG|SMALL)?SERIAL\b"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A statement and the rule that it breaks."""

    rule: str
    statement: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.statement[:120]}"


RULES = {
    "index-not-concurrent": "Writers wait until the index is created or dropped: use migrations.indexes.",
    "rewrite": "The table is rewritten under a lock that blocks readers: add a column, fill it, then use it instead.",
    "not-null-unchecked": "Readers wait for a full scan: validate a CHECK (… IS NOT NULL) in an earlier revision.",
    "constraint-validated": "All rows are read while writers wait: add it NOT VALID, VALIDATE it in the next revision.",
    "constraint-unique": "An index is created while readers wait: create it concurrently, then add it USING INDEX.",
    "column-filled": "A new NOT NULL column needs a constant default, else every row must be written.",
    "exclusive": "Readers are blocked until the statement is finished.",
    "rows-changed": "All rows stay locked until the last is changed: change them in batches, outside of migrations.",
    "half-committed": "A concurrent statement commits by itself: beside it, every statement must be safe to run again.",
    "dynamic-sql": "Dynamic SQL cannot be checked.",
}
"""What is wrong with a statement that breaks the rule, and what to do instead."""


@dataclass(slots=True)
class Linter:
    """Checks the revisions in their order, and remembers the constraints of the earlier ones."""

    validated: set[tuple[str, str]] = field(default_factory=set)
    """Tables and columns for which a validated constraint excludes null."""

    pending: dict[tuple[str, str], str] = field(default_factory=dict)
    """The columns of IS NOT NULL constraints that were added NOT VALID, by table and constraint."""

    def findings(self, sql: str) -> list[Finding]:
        """The statements of one revision that break a rule."""
        statements = [statement for statement in split(sql) if not _is_alembics(statement)]
        new = {_bare(name) for statement in statements for name in _created(statement)}
        found = [
            Finding(rule=rule, statement=statement) for statement in statements for rule in self._broken(statement, new)
        ]
        concurrent = [statement for statement in statements if re.search(r"\bCONCURRENTLY\b", statement)]
        if concurrent:
            found += [
                Finding(rule="half-committed", statement=statement)
                for statement in statements
                if statement not in concurrent and not statement.startswith("SELECT SET_CONFIG(")
            ]
        # The lock of ADD CONSTRAINT would be held while VALIDATE reads all rows.
        added = re.findall(rf"ADD CONSTRAINT ({_NAME}) [^;]*?NOT VALID", "; ".join(statements))
        found += [
            Finding(rule="constraint-validated", statement=statement)
            for statement in statements
            if any(name in added for name in re.findall(rf"VALIDATE CONSTRAINT ({_NAME})", statement))
        ]
        return found

    def _broken(self, statement: str, new: set[str]) -> Iterator[str]:
        if match := re.match(r"DO (\$\w*\$)(.*)\1", statement, re.DOTALL):
            body = match[2]
            if re.search(r"\bEXECUTE\b", body):
                yield "dynamic-sql"
            new = new | {_bare(name) for part in split(body) for name in _created(part)}
            # A part may begin with control words such as IF … THEN: search for statements anywhere in it.
            pattern = r"\b(?:CREATE|ALTER|DROP|UPDATE|DELETE|INSERT|TRUNCATE|LOCK|CLUSTER|VACUUM|REINDEX)\b"
            for part in split(body):
                if begin := re.search(pattern, part):
                    yield from self._broken(part[begin.start() :], new)
            return
        yield from _broken_by_index(statement, new)
        if match := re.match(rf"ALTER TABLE (?:IF EXISTS )?(?:ONLY )?({_NAME}) (.*)", statement, re.DOTALL):
            table = _bare(match[1])
            if table not in new:
                for action in _actions(match[2]):
                    yield from self._broken_by_action(table, action)
        if re.match(r"(?:VACUUM FULL|CLUSTER|LOCK|TRUNCATE|REFRESH MATERIALIZED VIEW (?!CONCURRENTLY))\b", statement):
            yield "exclusive"
        changed = re.match(rf"(?:UPDATE|DELETE FROM|INSERT INTO) (?:ONLY )?({_NAME})", statement)
        if changed and _bare(changed[1]) not in new:
            yield "rows-changed"

    def _broken_by_action(self, table: str, action: str) -> Iterator[str]:
        if re.match(r"ADD (?:CONSTRAINT|CHECK|FOREIGN|UNIQUE|PRIMARY|EXCLUDE)\b", action):
            yield from self._broken_by_constraint(table, action)
        elif re.match(r"ADD\b", action):
            yield from _broken_by_column(action)
        elif match := re.match(rf"VALIDATE CONSTRAINT ({_NAME})", action):
            column = self.pending.pop((table, _bare(match[1])), None)
            if column is not None:
                self.validated.add((table, column))
        elif match := re.match(rf"ALTER (?:COLUMN )?({_NAME}) (.*)", action, re.DOTALL):
            if re.match(r"(?:SET DATA )?TYPE\b", match[2]):
                yield "rewrite"
            elif re.match(r"SET NOT NULL", match[2]) and (table, _bare(match[1])) not in self.validated:
                yield "not-null-unchecked"
            elif re.match(r"ADD GENERATED", match[2]):
                yield "exclusive"
        elif re.match(r"SET (?:TABLESPACE|LOGGED|UNLOGGED|ACCESS METHOD)\b", action):
            yield "rewrite"

    def _broken_by_constraint(self, table: str, action: str) -> Iterator[str]:
        if re.search(r"\bUSING INDEX\b", action):
            return
        if re.search(r"\b(?:UNIQUE|PRIMARY KEY|EXCLUDE)\b", action):
            yield "constraint-unique"
        elif not re.search(r"\bNOT VALID\b", action):
            yield "constraint-validated"
        elif match := re.match(rf"ADD CONSTRAINT ({_NAME}) CHECK \(+\s*({_NAME}) IS NOT NULL\s*\)+ NOT VALID", action):
            # It counts after a later revision has validated it.
            self.pending[table, _bare(match[1])] = _bare(match[2])


def complaints(findings: list[Finding], waivers: Mapping[str, str]) -> list[str]:
    """The complaints about a revision: findings that are not waived, and waivers without need or reason."""
    broken = {finding.rule for finding in findings}
    return [
        *(f"{finding}. {RULES[finding.rule]}" for finding in findings if finding.rule not in waivers),
        *(f"{rule} is waived but not broken." for rule in waivers if rule not in broken),
        *(
            f"{rule} is waived without a sentence that gives the reason."
            for rule, why in waivers.items()
            if len(why.split()) < 5
        ),
    ]


def _broken_by_index(statement: str, new: set[str]) -> Iterator[str]:
    made = re.match(rf"CREATE (?:UNIQUE )?INDEX (?!CONCURRENTLY\b).*?\bON (?:ONLY )?({_NAME})", statement, re.DOTALL)
    changed = re.match(r"DROP INDEX (?!CONCURRENTLY\b)|REINDEX\b(?!.*\bCONCURRENTLY\b)", statement)
    if (made and _bare(made[1]) not in new) or changed:
        yield "index-not-concurrent"


def _broken_by_column(action: str) -> Iterator[str]:
    if re.search(rf"\bDEFAULT\b.*?{_VOLATILE}|{_GENERATED}", action, re.DOTALL):
        yield "rewrite"
    elif re.search(r"\bNOT NULL\b", action) and not re.search(r"\bDEFAULT\b", action):
        yield "column-filled"
    if re.search(r"\b(?:UNIQUE|PRIMARY KEY)\b", action):
        yield "constraint-unique"
    if re.search(r"\b(?:CHECK|REFERENCES)\b", action):
        yield "constraint-validated"


def split(sql: str) -> list[str]:
    """The statements, without comments, in capitals, with white space outside of string literals collapsed."""
    token = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|(\$\w*\$).*?\1|;|[^-/'$;]+|.", re.DOTALL)
    statements, current = [], ""
    for match in token.finditer(sql):
        piece = match[0]
        if piece == ";":
            statements.append(current)
            current = ""
        elif not piece.startswith(("--", "/*")):
            current += piece if piece[0] in "'$" and len(piece) > 1 else re.sub(r"\s+", " ", piece).upper()
    return [statement.strip() for statement in [*statements, current] if statement.strip()]


def _actions(text: str) -> list[str]:
    """The actions of an ALTER TABLE: split at commas, except inside brackets and string literals."""
    token = re.compile(r"'(?:[^']|'')*'|.", re.DOTALL)
    actions, current, depth = [], "", 0
    for match in token.finditer(text):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if match[0] == "," and depth == 0:
            actions.append(current.strip())
            current = ""
        else:
            current += match[0]
    return [*actions, current.strip()]


def _created(statement: str) -> list[str]:
    return re.findall(rf"\bCREATE (?:UNLOGGED )?TABLE (?:IF NOT EXISTS )?({_NAME})", statement)


def _bare(name: str) -> str:
    return name.rpartition(".")[2].strip('"')


def _is_alembics(statement: str) -> bool:
    """Whether Alembic or the environment adds this statement around the revision's own."""
    return bool(
        re.match(r"(?:BEGIN|COMMIT)$", statement)
        or re.search(r"\b\w*alembic_version\b", statement, re.IGNORECASE)
        or "pg_try_advisory_lock" in statement
        or "SET DEFAULT_TRANSACTION_ISOLATION" in statement
        or "server_encoding" in statement
    )
