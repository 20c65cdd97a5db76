"""Fixtures of the tests of the bundle: the images, in a container engine that the tests start."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.nodes import Node

from tests.deploy import base_images
from tests.deploy.engine import IMAGE, Engine, engine
from tests.paths import ROOT

VERSION, REVISION = "1.2.3", "0123abc"


# Before pytest-xdist reads the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[Node]) -> None:
    """Run the tests with containers first and in one process. They take the longest; others run beside them."""
    items.sort(key=lambda test: "images" not in getattr(test, "fixturenames", ()))
    for test in items:
        if "images" in getattr(test, "fixturenames", ()):
            test.add_marker("slow")
            test.add_marker(pytest.mark.xdist_group("containers"))
            test.add_marker(pytest.mark.needs("dockerd", "mmdebstrap", "ip", "root"))


@pytest.fixture(scope="session")
def images() -> Iterator[Engine]:
    """An engine with the images of the service, of PgBouncer, and of everything they need."""
    with engine() as running:
        base_images.make(running)
        build(running, IMAGE, ROOT, f"VERSION={VERSION}", f"REVISION={REVISION}")
        build(running, "items-pgbouncer:1.24", ROOT / "deploy" / "pgbouncer")
        yield running


def build(running: Engine, name: str, folder: Path, *arguments: str) -> None:
    """Build an image from its Dockerfile, with access to this machine's network for the packages."""
    options = [f"--build-arg={argument}" for argument in arguments]
    running.docker("build", "--network=host", "--pull=false", *options, "--tag", name, str(folder))
