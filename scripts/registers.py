"""The places that name every resource, and what they say about a new one."""

import ast
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from scripts.names import Name
from scripts.project import RefusedError
from scripts.rendering import render

_ERROR = '''class @Camel@NotFoundError(RequestError):
    """No @text@ has the given id."""

    code = "@word@_not_found"
    status = HTTPStatus.NOT_FOUND

    def __init__(self, @word@_id: int) -> None:
        super().__init__(f"No @text@ has the id {@word@_id}.")


'''


def changed(root: Path, name: Name, new: Mapping[Path, str]) -> dict[Path, str]:
    """The files that name every resource, with the new one.

    Raises:
        RefusedError: A place is not found.
    """
    edits: dict[str, Callable[[str], str]] = {
        "app/main.py": lambda text: _main(text, name),
        "app/models/__init__.py": lambda text: _models(text, name),
        "app/errors.py": lambda text: _errors(text, name),
        "app/http/openapi.py": lambda text: _tags(text, name),
        "docs/decisions/0007-layout.md": lambda text: _layout(text, _modules(root, new)),
        "CHANGELOG.md": lambda text: _changelog(text, name),
    }
    result = {}
    for path, edit in edits.items():
        text = (root / path).read_text("utf-8")
        result[root / path] = edited = edit(text)
        if edited == text:
            raise RefusedError(
                f"{path} has no place for a new resource: the lines that the program looks for are missing."
            )
    return result


def _main(text: str, name: Name) -> str:
    variable = name.forms()["variable"]
    text = re.sub(
        r"^from app\.routers import \(\n(?:.+\n)*?(?=\))", rf"\g<0>    {variable},\n", text, flags=re.MULTILINE
    )
    text = re.sub(r"^from app\.routers import \w.*$", rf"\g<0>, {variable}", text, flags=re.MULTILINE)
    resources = r"(^RESOURCES: Sequence\[APIRouter\] = \([^)]*?),?\s*\)"
    return re.sub(resources, rf"\1, {variable}.router)", text, flags=re.MULTILINE)


def _models(text: str, name: Name) -> str:
    return f"{text}{render('from app.models.@variable@ import @Camel@Row as @Camel@Row', name)}\n"


def _errors(text: str, name: Name) -> str:
    """The new error comes behind the last one of a resource that is not found."""
    classes = [
        node
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef) and node.name.endswith("NotFoundError") and node.end_lineno
    ]
    lines = text.splitlines(keepends=True)
    place = max(node.end_lineno or 0 for node in classes) + 2
    return "".join([*lines[:place], render(_ERROR, name), *lines[place:]])


def _tags(text: str, name: Name) -> str:
    tag = render('{"name": "@words@", "description": "Create, read, search, change and delete @texts@."},', name)
    return text.replace('    {"name": "system"', f'    {tag}\n    {{"name": "system"', 1)


def _modules(root: Path, new: Mapping[Path, str]) -> dict[str, str]:
    """What each new module of the application contains, by its path below `app/`."""
    return {
        str(path.relative_to(root / "app")): (ast.get_docstring(ast.parse(text)) or "")
        .partition("\n")[0]
        .partition(":")[0]
        .rstrip(".")
        for path, text in new.items()
        if path.is_relative_to(root / "app")
    }


def _layout(text: str, modules: Mapping[str, str]) -> str:
    """Each module is listed at the end of its folder."""
    for path, description in modules.items():
        folder, _, file = path.partition("/")
        line = f"    {file:22} {description[:1].lower()}{description[1:]}\n"
        block = re.search(rf"^  {folder}/.*\n(?:    .*\n)+", text, flags=re.MULTILINE)
        if block:
            text = text[: block.end()] + line + text[block.end() :]
    return text


def _changelog(text: str, name: Name) -> str:
    line = render(
        "- @Texts@: create, read, list, search, replace, change, deactivate and delete, at `/@path@`.\n", name
    )
    if "## [Unreleased]\n" not in text:
        return f"{text.rstrip()}\n\n## [Unreleased]\n\n### Added\n\n{line}"
    before, _, after = text.partition("## [Unreleased]\n")
    if re.match(r"\s*### Added\n\n", after):
        after = re.sub(r"### Added\n\n", lambda found: found[0] + line, after, count=1)
        return f"{before}## [Unreleased]\n{after}"
    return f"{before}## [Unreleased]\n\n### Added\n\n{line}{after}"
