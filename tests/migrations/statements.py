"""Splits the SQL of a revision into statements, also those inside of a DO block."""

import re
from collections.abc import Iterator

NAME = r'(?:"[^"]+"|\w+)(?:\.(?:"[^"]+"|\w+))?'
"""A pattern for the name of an object, with or without its schema."""

_LITERAL = r"\bE'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'"
_TOKEN = re.compile(rf"--[^\n]*|/\*.*?\*/|{_LITERAL}|(\$\w*\$).*?\1|;|[^-/'$;E]+|.", re.DOTALL | re.IGNORECASE)
_DO = re.compile(r"DO (?:LANGUAGE PLPGSQL )?(?:(\$\w*\$)(.*)\1|'(.*)')(?: LANGUAGE PLPGSQL)?$", re.DOTALL)
_CONTROL = re.compile(
    r"<<\w+>>|(?:BEGIN|EXCEPTION|ELSE|LOOP)\b"
    r"|(?:IF|ELSIF|ELSEIF|WHEN|CASE)\b(?P<condition>.*?)\bTHEN\b|(?:WHILE|FOR|FOREACH)\b(?P<loop>.*?)\bLOOP\b",
    re.DOTALL,
)
_DECLARATION = re.compile(r"(?:DECLARE )?\w+ [^:=]*?(?:(?::=|=|\bDEFAULT\b)(?P<value>.*))?$", re.DOTALL)
_ASSIGNMENT = re.compile(r"[\w.]+(?:\[[^]]*\])? ?:?=(?P<value>.*)", re.DOTALL)
_OF_PLPGSQL = re.compile(r"(?:END|NULL|RAISE|RETURN|EXIT|CONTINUE|GET|ASSERT)\b")


def split(sql: str) -> list[str]:
    """The statements, without comments, in capitals, with white space outside of string literals collapsed."""
    statements, current = [], ""
    for match in _TOKEN.finditer(sql):
        piece = match[0]
        if piece == ";":
            statements.append(current)
            current = ""
        elif not piece.startswith(("--", "/*")):
            is_literal = len(piece) > 1 and (piece[0] in "'$" or piece[:2] in ("E'", "e'"))
            current += piece if is_literal else re.sub(r"\s+", " ", piece).upper()
    return [statement.strip() for statement in [*statements, current] if statement.strip()]


def expand(statement: str) -> Iterator[str]:
    """The parts of a statement that are checked one by one, each a statement itself.

    These are the statements in a DO block, with each of its expressions as a SELECT, and the actions of an ALTER TABLE.
    """
    if match := _DO.match(statement):
        body = match[2] or match[3].replace("''", "'")
        for inner in _plpgsql(body):
            yield from expand(inner)
    elif match := re.match(rf"(ALTER TABLE (?:IF EXISTS )?(?:ONLY )?{NAME} )(.*)", statement, re.DOTALL):
        yield from (match[1] + action for action in _at_commas(match[2]))
    else:
        yield statement


def plain_name(name: str) -> str:
    """The name of an object without quotes, and without the schema `public`."""
    return name.replace('"', "").removeprefix("PUBLIC.")


def _plpgsql(body: str) -> Iterator[str]:
    declares = False
    for part in split(body):
        rest = part
        while not (declares := rest.startswith("DECLARE ") or (declares and not re.match(r"BEGIN\b", rest))):
            control = _CONTROL.match(rest)
            if control is None:
                break
            if expression := control["condition"] or control["loop"]:
                yield f"SELECT {expression.strip()}"
            rest = rest[control.end() :].strip()
        if declares:
            yield f"SELECT {_group(_DECLARATION, rest) or 'NULL'}"
        elif re.match(r"PERFORM\b", rest) or _OF_PLPGSQL.match(rest):
            yield f"SELECT {rest.partition(' ')[2] or 'NULL'}"
        elif value := _group(_ASSIGNMENT, rest):
            yield f"SELECT {value}"
        elif rest:
            yield rest


def _group(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.match(text)
    return match["value"].strip() if match and match["value"] else None


def _at_commas(text: str) -> list[str]:
    """The parts between commas, except for commas in brackets and string literals."""
    parts, current, depth = [], "", 0
    for match in re.finditer(rf"{_LITERAL}|.", text, re.DOTALL):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if match[0] == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += match[0]
    return [*parts, current.strip()]
