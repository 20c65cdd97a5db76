"""The templates of a resource: those of the files of the items."""

from pathlib import Path

from scripts import marking

ROOT = Path(__file__).resolve().parents[1]


def files() -> dict[str, str]:
    """The templates of the files, by their paths, which are templates too."""
    return marking.mark_files(ROOT)


def functions() -> dict[str, str]:
    """The templates of the functions in PostgreSQL that statements on the table call, by their names."""
    return marking.mark_functions(ROOT)
