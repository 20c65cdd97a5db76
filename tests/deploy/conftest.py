"""What the checks of the bundle start from: rendered manifests, and images in an engine of the tests' own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy import base_images
from tests.deploy.engine import Engine, engine
from tests.paths import ROOT

VERSION, REVISION = "1.2.3", "0123abc"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs no container runs first: it fails within seconds."""
    items.sort(key=lambda item: "images" in getattr(item, "fixturenames", ()))
    for item in items:
        if "images" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.needs("dockerd", "mmdebstrap", "ip", "root"))


@pytest.fixture(scope="session")
def images() -> Iterator[Engine]:
    """An engine that has the service's image, PgBouncer's, and all that they run beside."""
    with engine() as running:
        base_images.make(running)
        build(running, "items-api:local", ROOT, f"VERSION={VERSION}", f"REVISION={REVISION}")
        build(running, "items-pgbouncer:1.24", ROOT / "deploy" / "pgbouncer")
        yield running


def build(running: Engine, name: str, folder: Path, *arguments: str) -> None:
    """Build an image as its Dockerfile says. Packages come the way this machine reaches them."""
    options = [f"--build-arg={argument}" for argument in arguments]
    running.docker("build", "--network=host", "--pull=false", *options, "--tag", name, str(folder))
