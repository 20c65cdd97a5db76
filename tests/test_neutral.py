"""The tests of the platform do not depend on the service's own resources: they stay when a resource is dropped."""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from app.main import RESOURCES
from app.models import Base
from tests.paths import ROOT
from tests.resources import MODULES, is_about_a_resource

TABLES = sorted(Base.metadata.tables.keys() - {"idempotency_keys"})

DERIVING = ROOT / "tests" / "scripts"
"""The tests of the programs that derive a service from this one, which rename its resource."""

MODULES_OF_LAYERS = [
    f"app.{path.parent.name}.{path.stem}"
    for path in sorted((ROOT / "app").glob("*/*.py"))
    if path.parent.name in ("crud", "dataclasses", "models", "routers", "schemas") and is_about_a_resource(path)
]


def patterns() -> Iterator[str]:
    """What names a resource: its path, its table in SQL, its modules, its classes and the code of its error."""
    for router in RESOURCES:
        yield rf"(?<!\d){router.prefix}\b"  # not the name of a database after its port
    for table in TABLES:
        yield rf"\b(?:FROM|INTO|UPDATE|JOIN|ON|TABLE|REFERENCES) (?:ONLY )?{table}\b"
    for module in MODULES:
        yield rf"\b{module}_not_found\b"
    for name in MODULES_OF_LAYERS:
        package, _, module = name.rpartition(".")
        yield rf"\b{re.escape(name)}\b|\bfrom {re.escape(package)} import .*\b{module}\b|{name.replace('.', '/')}\.py"
        resource = next(module for module in MODULES if name.rpartition(".")[2].startswith(module))
        title = resource.title().replace("_", "")
        own = [key for key, value in vars(import_module(name)).items() if getattr(value, "__module__", "") == name]
        yield from (rf"\b{key}\b" for key in own if title in key and key != title)


def names_a_resource(text: str) -> list[str]:
    """The parts of this text that name one of the service's own resources."""
    return [match[0] for pattern in patterns() for match in re.finditer(pattern, text)]


@pytest.mark.parametrize(
    "file", sorted((ROOT / "tests").rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT / "tests"))
)
def test_a_file_that_is_not_about_a_resource_names_none(file: Path):
    """What is tested of a resource is in files with its name. The others use the samples, or no resource."""
    if not is_about_a_resource(file) and DERIVING not in file.parents:
        assert [] == names_a_resource(file.read_text())


def test_every_way_to_name_a_resource_is_found():
    """The check finds the path, table, modules and classes of each resource, in the files that are about it."""
    about = [file.read_text() for file in (ROOT / "tests").rglob("*.py") if is_about_a_resource(file)]
    found = {match for text in about for match in names_a_resource(text)}

    for router in RESOURCES:
        assert router.prefix in found
    for table in TABLES:
        assert any(match.endswith(f" {table}") for match in found)
    for module in MODULES:
        assert any(module in match.lower() for match in found)
