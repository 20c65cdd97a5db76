"""Turns the files of the items into templates, from which the files of another resource are rendered."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from scripts.rendering import regions

_WORD = re.compile(r"(?<!\w)(?:([Aa])n([\s`]+))?(\w*[Ii][Tt][Ee][Mm]\w*)")
"""A word that contains the resource's name, and the article before it."""

_SQL_BEFORE = re.compile(
    r"(?:\b(?:FROM|INTO|UPDATE|TABLE|TRUNCATE|ANALYZE|VACUUM|FULL|ONLY|ON|JOIN|LOCK|REFERENCES|SETOF)\)? "
    r"|NULL::|public[. ]|to_jsonb\(|idempotency_keys, |Scan on |Relation Name\"\) == \"|__tablename__ = \")$"
)
_SQL_AFTER = re.compile(r", idempotency_keys| SET UNLOGGED")
_MARK_OF_SEGMENT = {"item": "word", "items": "words", "ITEM": "WORD", "ITEMS": "WORDS"}
_KEY_PREFIX = ('KEY_PREFIX = ""', 'KEY_PREFIX = "@words@ "')
"""The idempotency keys of the first resource have no prefix, those of every other resource have one."""

_TESTED = ("crud", "dataclasses", "http", "models", "routers", "schemas")
"""The folders in `tests/` whose tests each resource has. Others test the bundle with the first resource alone."""

_NOT_THE_RESOURCE = re.compile(r"(?:get|set|del|pop|modify)items?")


def mark_python(source: str) -> str:
    """The template of a Python file."""
    return _mark(source, list(regions(source)))


def mark_text(source: str) -> str:
    """The template of a text that is not Python."""
    return _mark(source, [(0, len(source), False)])


def _mark(source: str, regions: list[tuple[int, int, bool]]) -> str:
    marked, done = [], 0
    for start, end, is_code in regions:
        for match in _WORD.finditer(source[:end], start):
            article, space, word = match.groups()
            marked.append(source[done : match.start()])
            context = source[max(0, match.start(3) - 40) : match.start(3)], source[match.end() : match.end() + 20]
            replaced = _mark_word(word, *context, is_code=is_code)
            if article and replaced != word:
                marked.append(f"@{article}@{space}")
            elif article:
                marked.append(f"{article}n{space}")
            marked.append(replaced)
            done = match.end()
    marked.append(source[done:])
    return "".join(marked)


def _mark_word(word: str, before: str, after: str, *, is_code: bool) -> str:
    """The word with marks in place of the resource's name."""
    if word in ("item", "items", "Item", "Items"):
        mark = _mark_in_code(word, before, after) if is_code else _mark_in_text(word, before, after)
        return f"@{mark}@" if mark else word
    return re.sub(r"(?<![a-z])an_(@words?@)", r"@a@_\1", "_".join(_marked_segments(word)))


def _marked_segments(word: str) -> Iterator[str]:
    segments = word.split("_")
    for place, segment in enumerate(segments):
        if segment == "items" and place > 0 and segments[place - 1] in ("ix", "uq", "ck", "fk", "pk"):
            yield "@table@"
        elif segment in _MARK_OF_SEGMENT:
            yield f"@{_MARK_OF_SEGMENT[segment]}@"
        elif _NOT_THE_RESOURCE.fullmatch(segment):
            yield segment
        else:
            hump = re.sub(r"Item(s?)(?=[A-Z0-9]|$)", r"@Camel\1@", segment)
            yield re.sub(r"(?<![@a-z])item(s?)|item(s?)$", lambda match: f"@flat{match[1] or match[2] or ''}@", hump)


def _mark_in_code(word: str, before: str, after: str) -> str | None:
    if word == "items":
        if before.endswith(".") and after.startswith("()"):
            return None  # the method of dictionaries
        is_argument = re.match(r"=(?![= ])", after)
        is_field = re.search(r"(?:^|\n) {4}$", before) and after.startswith(": ")
        return "words" if before.endswith(".") or is_argument or is_field else "variables"
    return {"item": "variable", "Item": "Class", "Items": "Camels"}[word]


def _mark_in_text(word: str, before: str, after: str) -> str:
    quotes = before[-1:], after[:1]
    if word == "Item":
        return "Class" if quotes in (("`", "`"), ('"', '"')) or after[:1] == "(" else "Text"
    if word == "Items":
        return "Path" if before.endswith("/") else "Texts"
    return _mark_of_singular(before, after) if word == "item" else _mark_of_plural(before, after)


def _mark_of_plural(before: str, after: str) -> str:
    quotes = before[-1:], after[:1]
    is_new_index = before.endswith("on ") and after.startswith(" (")
    if _SQL_BEFORE.search(before) or _SQL_AFTER.match(after) or is_new_index or quotes == ("'", "'"):
        return "table"
    if before.endswith("/"):
        return "path"
    if quotes in (("`", "`"), ('"', '"')) or re.match(r"\.\d|:(?:read|write)\b", after):
        return "words"
    return "table" if re.match(r"\.[a-z]", after) else "texts"


def _mark_of_singular(before: str, after: str) -> str:
    if before.endswith("/"):
        return "variable" if after.startswith(".py") else "path_one"
    if (before[-1:], after[:1]) in (("'", "'"), ('"', '"')):
        return "word"
    is_reference = re.search(r"\w\.$", before) or re.match(r"\.[a-z]", after)
    return "variable" if is_reference or (before[-1:], after[:1]) == ("`", "`") else "text"


def mark_files(root: Path) -> dict[str, str]:
    """The templates of the resource's files, by their paths, which are templates too."""
    paths = [*root.glob("app/**/*.py"), *(path for folder in _TESTED for path in root.glob(f"tests/{folder}/*.py"))]
    found = [path for path in paths if "item" in path.stem.split("_")]
    sources = {mark_path(str(path.relative_to(root))): path.read_text("utf-8") for path in sorted(found)}
    return {path: mark_python(source).replace(*_KEY_PREFIX) for path, source in sources.items()}


def mark_path(path: str) -> str:
    """The template of a file's path."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/@variable@.py" if name == "item.py" else mark_text(path)


def mark_functions(root: Path) -> dict[str, str]:
    """The templates of the functions of the table, by their names, as the newest revision creates them."""
    found = {}
    for path in sorted(root.glob("migrations/versions/*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for name in re.findall(r"CREATE (?:OR REPLACE )?FUNCTION (\w*items\w*)\(", node.value):
                    found[mark_text(name)] = mark_text(node.value)
    return found
