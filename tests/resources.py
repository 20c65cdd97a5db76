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

_STEMS = {path.stem for path in (ROOT / "app" / "routers").glob("*.py")} - {"__init__", "docs", "system"}

MODULES = {stem.rstrip("_") for stem in _STEMS}
"""The name of each resource, such as `item`: its module has an underscore after it if it is a word of Python."""


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
