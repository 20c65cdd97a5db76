"""What the README says is true."""

from pydantic.fields import FieldInfo

from app.settings import Settings
from tests.paths import ROOT

README = (ROOT / "README.md").read_text()


def row(name: str, field: FieldInfo) -> str:
    """A setting as the README's table must have it: its default, and the docstring below its field."""
    default = field.default
    if field.default_factory is not None:
        shown = "*found*"
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


def test_the_settings_table_is_that_of_the_code():
    """Each setting stands in the README with its default and its meaning, and no other does."""
    table = README.split("## Settings")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]

    assert [row(name, field) for name, field in Settings.model_fields.items()] == rows
