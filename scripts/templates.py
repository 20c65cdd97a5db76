"""The templates of a resource: those of the files of the items."""

import re
from pathlib import Path

from scripts import marking

ROOT = Path(__file__).resolve().parents[1]

_OF_PREVIOUS_RELEASE = re.compile(
    r"^ +# Only for the previous release.*?(?=^ +# For )|^ +\"letter_pairs\(text\)\",\n", re.MULTILINE | re.DOTALL
)
"""The indexes that a new table does not need, because no statement of this release uses them, and their function."""


def files() -> dict[str, str]:
    """The templates of the files of a new resource, by their paths, which are templates too."""
    return {path: _OF_PREVIOUS_RELEASE.sub("", template) for path, template in marking.mark_files(ROOT).items()}


def functions() -> dict[str, str]:
    """The templates of the functions in PostgreSQL that statements on the table call, by their names."""
    return marking.mark_functions(ROOT)
