"""docs/settings.md describes the settings as they are."""

import ast
import inspect
from itertools import pairwise

from pydantic.fields import FieldInfo

from app.settings import Settings
from app.settings.environment import FromEnvironment
from tests.paths import ROOT

PAGE = (ROOT / "docs" / "settings.md").read_text()


def meanings() -> dict[str, str]:
    """The docstring below each field, by the name of the field.

    Pydantic can give them to the fields itself. That would be a fifth of the time in which a worker starts.
    """
    classes = [
        ast.parse(inspect.getsource(base)).body[0] for base in Settings.__mro__ if issubclass(base, FromEnvironment)
    ]
    return {
        ast.unparse(field.target): ast.literal_eval(text.value)
        for defined in classes
        if isinstance(defined, ast.ClassDef)
        for field, text in pairwise(defined.body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
    }


def row(name: str, field: FieldInfo, meaning: str) -> str:
    """The row of a setting: its name, its default, and the docstring below its field."""
    default = field.default
    if field.default_factory is not None:
        shown = "*detected*"
    elif default is None or default == ():
        shown = "none"
    elif isinstance(default, tuple):
        shown = f"`{','.join(default)}`"
    elif isinstance(default, bool):
        shown = f"`{str(default).lower()}`"
    elif isinstance(default, float):
        shown = f"`{default:g}`"
    else:
        shown = f"`{default}`"
    return f"| `{name.upper()}` | {shown} | {' '.join(meaning.split())} |"


def test_the_table_lists_every_setting():
    """Each setting has a row with its default and its meaning, in the order of the code, and there is no other row."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]

    fields, texts = Settings.model_fields, meanings()
    inherited = [name for name in fields if name not in Settings.__annotations__]  # those of tracing come last
    assert [row(name, fields[name], texts[name]) for name in (*Settings.__annotations__, *inherited)] == rows
