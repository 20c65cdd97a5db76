"""Rules and alerts work, each alert has a section in the runbook, and the dashboard is complete."""

import json
import re
import subprocess

import pytest
import yaml

from app import NAME
from tests.paths import ROOT
from tests.programs import find

FOLDER = ROOT / "deploy" / "prometheus"
RUNBOOK = ROOT / "docs" / "operations" / "alerts.md"

ALERTS = [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]


def promtool(*arguments):
    """Run promtool from Debian's package prometheus."""
    done = subprocess.run([find("promtool"), *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.needs("promtool")
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "--lint=all", "--lint-fatal", "prometheus.yaml"),
        ("check", "rules", "--lint=all", "--lint-fatal", "rules.yaml", "alerts.yaml"),
        ("test", "rules", "alerts.test.yaml"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_promtool_finds_no_error(arguments):
    """The files are valid, and the unit tests of the alerts pass."""
    code, output = promtool(*arguments)

    assert 0 == code, output


def test_every_alert_has_tests():
    """At least one test in which the alert fires, and one in which it does not."""
    groups = yaml.safe_load((FOLDER / "alerts.test.yaml").read_text())["tests"]
    cases = [case for group in groups for case in group["alert_rule_test"]]
    names = {alert["alert"] for alert in ALERTS}

    assert names == {case["alertname"] for case in cases if case["exp_alerts"]}
    assert names == {case["alertname"] for case in cases if not case["exp_alerts"]}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_links_to_its_section_of_the_runbook(alert):
    """The URL leads to the section of the alert, and the severity is page or ticket."""
    file, anchor = alert["annotations"]["runbook_url"].split("#")
    sections = [line.removeprefix("## ").lower() for line in RUNBOOK.read_text().splitlines() if line.startswith("## ")]

    assert RUNBOOK == ROOT / file
    assert alert["alert"].lower() == anchor
    assert anchor in sections
    assert {"severity": "page"} == alert["labels"] or {"severity": "ticket"} == alert["labels"]
    assert {"summary", "description", "runbook_url"} == alert["annotations"].keys()


def test_the_runbook_has_no_section_without_an_alert():
    """Each section of the runbook belongs to an alert."""
    sections = re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE)

    assert {alert["alert"] for alert in ALERTS} == set(sections)


def test_the_dashboard_is_complete():
    """Every panel has a title, a unit and queries, no panels overlap, and every data source is the variable."""
    dashboard = json.loads((ROOT / "deploy" / "grafana" / f"{NAME}.json").read_text())
    panels = dashboard["panels"]
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        taken = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        cells |= taken
        assert place["x"] + place["w"] <= 24
        if panel["type"] != "row":
            assert panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["targets"]
            assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_the_provisioning_of_grafana_matches_compose():
    """The folders and hosts in the provisioning exist in the Compose file."""
    compose = (ROOT / "deploy" / "compose" / "compose.yaml").read_text()
    (provider,) = yaml.safe_load((ROOT / "deploy" / "grafana" / "dashboards.yaml").read_text())["providers"]
    (source,) = yaml.safe_load((ROOT / "deploy" / "grafana" / "datasources.yaml").read_text())["datasources"]

    assert f"{NAME}.json:{provider['options']['path']}/{NAME}.json:ro" in compose
    assert "http://prometheus:9090" == source["url"]
    assert "\n  prometheus:\n" in compose
