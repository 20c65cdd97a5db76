"""The dashboard fits the schema of Grafana."""

import json
import shutil
import subprocess

import pytest

from app import NAME
from tests.paths import ROOT
from tests.programs import find

DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / f"{NAME}.json").read_text())

pytestmark = [pytest.mark.slow, pytest.mark.needs("node", "npm"), pytest.mark.xdist_group("grafana")]


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """A function that returns what TypeScript says of a dashboard, with the types that Grafana publishes."""
    folder = shutil.copytree(ROOT / "tests" / "deploy" / "grafana", tmp_path_factory.mktemp("grafana") / "dashboard")
    installed = subprocess.run([find("npm"), "ci"], cwd=folder, capture_output=True, text=True, check=False)
    assert 0 == installed.returncode, installed.stderr

    def check(dashboard):
        text = json.dumps(dashboard, indent=1)
        code = f'import type {{ Known }} from "./known.js";\n\nexport const dashboard: Known = {text};\n'
        (folder / "dashboard.ts").write_text(code)
        return subprocess.run(["node_modules/.bin/tsc"], cwd=folder, capture_output=True, text=True, check=False).stdout

    return check


def test_the_dashboard_fits_the_schema(checked):
    """No property is unknown, is missing or has another type."""
    assert "" == checked(DASHBOARD)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gridpos": {}}, "'\"gridpos\"' does not exist"),
        ({"gridPos": {"x": 0, "y": 0, "w": "8", "h": 8}}, "'string' is not assignable to type 'number'"),
    ],
)
def test_a_wrong_panel_is_found(checked, wrong, message):
    """The check finds an unknown property, and a value of another type."""
    first, *others = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

    assert message in checked(DASHBOARD | {"panels": [first | wrong, *others]})
