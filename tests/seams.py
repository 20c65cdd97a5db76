"""The members of other packages that the service overrides, replaces or reads without a promise that they stay.

`python -m tests.seams` records their signatures in tests/seams.txt.
"""

import ast
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

from gunicorn import config as gunicorn_config

from tests.paths import ROOT

RECORD = ROOT / "tests" / "seams.txt"

_CONFIGURATION = ROOT / "gunicorn.conf.py"

_OUR_PACKAGES = {"app", "migrations"}


def discover() -> list[str]:
    """A line for each member, with its signature."""
    lines = set(_gunicorn_settings())
    for file in _files():
        module, tree = _load(file), ast.parse(file.read_text())
        lines |= {*_inherited(tree, module), *_assigned(tree, module), *_private(tree, module)}
    return sorted(lines)


def _files() -> list[Path]:
    """The modules, except what only Alembic can run."""
    files = [*ROOT.glob("app/**/*.py"), *ROOT.glob("migrations/*.py")]
    return sorted(file for file in files if file.name != "env.py")


def _load(file: Path) -> ModuleType:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return importlib.import_module(".".join(part for part in parts if part != "__init__"))


def _gunicorn_settings() -> Iterator[str]:
    """The settings and hooks of the configuration. Gunicorn ignores a name that it does not know."""
    tree = ast.parse(_CONFIGURATION.read_text())
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    defined |= {target.id for node in tree.body for target in _targets(node) if isinstance(target, ast.Name)}
    for setting in gunicorn_config.KNOWN_SETTINGS:
        if setting.name in defined:
            yield f"gunicorn.config {setting.name}{_signature(setting.default)}"


def _inherited(tree: ast.Module, module: ModuleType) -> Iterator[str]:
    """What our classes override of their bases, or use of them through `self`."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            names = {name for part in node.body for name in _defined(part)} | _used_of_self(node)
            for base in getattr(module, node.name).__mro__[1:]:
                if _is_foreign(base.__module__):
                    yield from (_line(base, name) for name in names if _has(base, name))


def _defined(node: ast.stmt) -> Iterator[str]:
    """The names that a statement in the body of a class defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    yield from (target.id for target in _targets(node) if isinstance(target, ast.Name))


def _targets(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.Assign):
        return node.targets
    return [node.target] if isinstance(node, ast.AnnAssign | ast.AugAssign) else []


def _used_of_self(node: ast.ClassDef) -> set[str]:
    return {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute) and _is_self(part.value)}


def _is_self(node: ast.expr) -> bool:
    return (isinstance(node, ast.Name) and node.id in {"self", "cls"}) or (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"
    )


def _assigned(tree: ast.Module, module: ModuleType) -> Iterator[str]:
    """What is replaced in other packages' modules, and the attributes of their objects that are set."""
    for node in ast.walk(tree):
        for target in _targets(node):
            if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and not _is_self(target.value):
                owner = getattr(module, target.value.id, None)
                if not inspect.ismodule(owner):
                    yield from (_line(known, target.attr) for known in _known(module) if _has(known, target.attr))
                elif _is_foreign(owner.__name__):
                    yield f"{owner.__name__}.{target.attr}{_signature(getattr(owner, target.attr))}"


def _private(tree: ast.Module, module: ModuleType) -> Iterator[str]:
    """What is private to other packages and read all the same, besides what our classes inherit.

    Raises:
        LookupError: None of the classes that the module knows has a member of that name.
    """
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and node.attr.startswith("_")
            and not node.attr.startswith("__")
            and not _is_self(node.value)
            and node.attr not in _our_names()
            and not _is_of_the_standard_library(node.value, module)
        ):
            owners = [known for known in _known(module) if _has(known, node.attr)]
            if not owners:
                raise LookupError(f"{module.__name__}: the class that defines {ast.unparse(node)} is not imported")
            yield from (_line(owner, node.attr) for owner in owners)


def _is_of_the_standard_library(node: ast.expr, module: ModuleType) -> bool:
    """Whether the name stands for a module of Python, such as `os`: it changes with Python, not with a package."""
    owner = getattr(module, node.id, None) if isinstance(node, ast.Name) else None
    return inspect.ismodule(owner) and not _is_foreign(owner.__name__)


def _known(module: ModuleType) -> set[type]:
    """The classes of other packages that a module imports, and the bases of all classes in it."""
    classes = [value for value in vars(module).values() if inspect.isclass(value)]
    return {base for owner in classes for base in owner.__mro__ if _is_foreign(base.__module__)}


@cache
def _our_names() -> frozenset[str]:
    """The names that our own classes define or assign."""
    found: set[str] = set()
    for file in _files():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                found |= {name for part in node.body for name in _defined(part)} | _assigned_to_self(node)
            elif isinstance(node, ast.Module):
                found |= {name for part in node.body for name in _defined(part)}
    return frozenset(found)


def _assigned_to_self(node: ast.AST) -> set[str]:
    return {
        target.attr
        for part in ast.walk(node)
        for target in _targets(part)
        if isinstance(target, ast.Attribute) and _is_self(target.value)
    }


def _is_foreign(module: str) -> bool:
    package = module.partition(".")[0]
    return package not in _OUR_PACKAGES and package not in sys.stdlib_module_names


def _has(owner: type, name: str) -> bool:
    return name in vars(owner) or name in _instance_attributes(owner)


@cache
def _instance_attributes(owner: type) -> set[str]:
    """What the methods of a class assign to `self`."""
    try:
        return _assigned_to_self(ast.parse(textwrap.dedent(inspect.getsource(owner))))
    except (OSError, TypeError):  # it is not written in Python
        return set()


def _line(owner: type, name: str) -> str:
    found = inspect.getattr_static(owner, name, None)
    signature = _signature(found.__func__ if isinstance(found, classmethod | staticmethod) else found)
    return f"{owner.__module__}.{owner.__qualname__}.{name}{signature}"


def _signature(member: object) -> str:
    """The parameters' names and kinds. Annotations and defaults are written differently by each release of Python."""
    if not callable(member):
        return ""
    try:
        parameters = inspect.signature(member).parameters.values()
    except (TypeError, ValueError):
        return "(…)"
    parts: list[str] = []
    keywords_only = False
    for parameter in parameters:
        stars = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(parameter.kind.name, "")
        if parameter.kind is parameter.KEYWORD_ONLY and not keywords_only:
            parts.append("*")
        keywords_only |= parameter.kind in {parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL}
        parts.append(stars + parameter.name + ("=…" if parameter.default is not parameter.empty else ""))
    return f"({', '.join(parts)})"


if __name__ == "__main__":
    RECORD.write_text("\n".join(discover()) + "\n", encoding="utf-8")
