"""docs/settings.md describes the settings as they are."""

from pydantic.fields import FieldInfo

from app.settings import Settings
from tests.paths import ROOT

PAGE = (ROOT / "docs" / "settings.md").read_text()


def row(name: str, field: FieldInfo) -> str:
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
    return f"| `{name.upper()}` | {shown} | {' '.join((field.description or '').split())} |"


def test_the_table_lists_every_setting():
    """Each setting has a row with its default and its meaning, in the order of the code, and there is no other row."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]

    fields = Settings.model_fields
    inherited = [name for name in fields if name not in Settings.__annotations__]  # those of tracing come last
    assert [row(name, fields[name]) for name in (*Settings.__annotations__, *inherited)] == rows
