"""The service's own resources, for tests of the platform, which do not name them.

What is tested of a resource is in files with the name of its module, such as `test_item.py` and `test_item_pages.py`.
"""

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from app.main import create_app
from app.settings import Settings
from tests.paths import ROOT

_FOLDERS = (ROOT / "app" / "models", ROOT / "app" / "routers")
_STEMS = set.intersection(*({path.stem for path in folder.glob("*.py")} for folder in _FOLDERS)) - {"__init__"}

MODULES = {stem.rstrip("_") for stem in _STEMS}
"""The name of each resource that has a table and routes, such as `item`.

Its module has an underscore after the name if that is a word of Python.
"""


def is_about_a_resource(file: Path) -> bool:
    """Whether this file belongs to the tests of one of the service's own resources."""
    return any(f"_{module}_" in f"_{file.stem}_" for module in MODULES)


@cache
def creation() -> tuple[str, dict[str, Any]]:
    """The path and a valid body of the first operation that creates something, from the OpenAPI document."""
    document = create_app(Settings.load(database_url="postgresql://a@b/c", _env_file=None)).openapi()
    for path, operations in document["paths"].items():
        if "{" not in path and "post" in operations:
            schema = operations["post"]["requestBody"]["content"]["application/json"]["schema"]
            name = schema["$ref"].rpartition("/")[2]
            return path, document["components"]["schemas"][name]["examples"][0]
    pytest.skip("this service has no resource", allow_module_level=True)
