"""Turns a template into the text about one resource.

A template has marks such as `@word@` where a form of the name stands: `Name.forms` lists them.
"""

import io
import keyword
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from scripts.names import Name, UnusableNameError

_OTHER_PATHS = frozenset({"docs", "health", "metrics", "samples"})
"""Paths that the service has already. The samples are the tests' own resource."""

_MEMBERS_OF_A_LIST = frozenset({"page", "per_page", "total", "total_is_exact", "has_more", "pages", "next_cursor"})

_CLASS, _VARIABLE = re.compile(r"@Class@"), re.compile(r"(?<![.\w])@variables?@")
"""The resource's name alone as the name of a class or variable. Only there it can collide with other names."""

_MARK = re.compile(r"@(\w+)@")


def render(template: str, name: Name) -> str:
    """The text for this name."""
    forms = name.forms()
    return _MARK.sub(lambda match: forms.get(match[1], match[0]), template)


def identifiers(source: str) -> set[str]:
    """The names in the code of a Python file."""
    return {source[start:end] for start, end, is_code in regions(source) if is_code}


def regions(source: str) -> Iterator[tuple[int, int, bool]]:
    """The names, texts and comments of a Python file, as offsets, and whether each is a name."""
    lines = [0]
    for line in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        start, end = (lines[row - 1] + column for row, column in (token.start, token.end))
        kind = tokenize.tok_name[token.type]
        if kind == "NAME":
            yield start, end, True
        elif kind == "STRING" and "f" in source[start : start + 2].lower().partition('"')[0]:
            yield from _parts_of_format_string(source, start, end)  # Python 3.11; later releases yield the parts
        elif kind in ("STRING", "COMMENT", "FSTRING_MIDDLE"):
            yield start, end, False


def _parts_of_format_string(source: str, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    depth, begun = 0, start
    for match in re.finditer(r"\{\{|\}\}|[{}]", source[start:end]):
        place = start + match.start()
        if depth == 0 and match[0] == "{":
            yield begun, place, False
            depth, begun = 1, place + 1
        elif depth > 0 and match[0] != "{{":
            depth += {"{": 1, "}": -1, "}}": -2}[match[0]]
            if depth <= 0:
                yield from ((begun + word.start(), begun + word.end(), True) for word in _names(source[begun:place]))
                depth, begun = 0, place + 1
    yield begun, end, False


def _names(code: str) -> Iterator[re.Match[str]]:
    return re.finditer(r"[A-Za-z_]\w*", code)


def taken_names(templates: Iterable[str]) -> set[str]:
    """The names in the code of templates that are not made from the resource's name."""
    placeholder = Name("placeholder", "placeholders")
    found = set[str]()
    for template in templates:
        names = identifiers(render(template, placeholder))
        found |= {name for name in names if _CLASS.search(template) and name[:1].isupper()}
        found |= {name for name in names if _VARIABLE.search(template) and not name[:1].isupper()}
    return {name for name in found if "placeholder" not in name.lower() and not keyword.iskeyword(name)}


def usable_name(root: Path, sources: Mapping[str, str], singular: str, plural: str | None) -> Name:
    """The resource's name, with the forms that no other name of the code has.

    Raises:
        UnusableNameError: The service cannot have a resource of this name.
    """
    parsed = Name.parse(singular, plural)
    modules = [source for path, source in sources.items() if path.endswith(".py")]
    taken = taken_names(modules) | identifiers((root / "app" / "main.py").read_text("utf-8"))
    existing = {path.stem for path in root.glob("app/*/*.py")} - {"__init__"}
    name = Name(parsed.singular, parsed.plural, frozenset(taken | existing))
    path = name.forms()["path"]
    if any(f'prefix="/{path}"' in router.read_text("utf-8") for router in root.glob("app/routers/*.py")):
        raise UnusableNameError(f"The path /{path} exists already: give the resource another name.")
    if path in _OTHER_PATHS:
        raise UnusableNameError(f"The path /{path} has another use: give the resource another name.")
    if name.plural in _MEMBERS_OF_A_LIST:
        raise UnusableNameError(f"Lists have a member {name.plural} already: give the resource another name.")
    return name
