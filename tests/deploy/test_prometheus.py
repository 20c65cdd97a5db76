"""Rules and alerts do what they say, lead to a runbook, and the dashboard asks for nothing unknown."""

import json
import re
import subprocess

import pytest
import yaml

from tests.paths import ROOT
from tests.programs import find

FOLDER = ROOT / "deploy" / "prometheus"
RUNBOOK = ROOT / "docs" / "operations" / "alerts.md"

ALERTS = [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]


def promtool(*arguments):
    """Run promtool, of Debian's package prometheus."""
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
def test_promtool_agrees(arguments):
    """The files are valid, and each alert fires for what it is meant for and not for less."""
    code, output = promtool(*arguments)

    assert 0 == code, output


def test_every_alert_is_tested_and_can_keep_quiet():
    """One test in which it fires and one in which it does not, at least."""
    groups = yaml.safe_load((FOLDER / "alerts.test.yaml").read_text())["tests"]
    cases = [case for group in groups for case in group["alert_rule_test"]]
    names = {alert["alert"] for alert in ALERTS}

    assert names == {case["alertname"] for case in cases if case["exp_alerts"]}
    assert names == {case["alertname"] for case in cases if not case["exp_alerts"]}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_leads_to_its_runbook(alert):
    """The link is a section of the runbook, and the severity says who is called."""
    file, anchor = alert["annotations"]["runbook_url"].split("#")
    sections = [line.removeprefix("## ").lower() for line in RUNBOOK.read_text().splitlines() if line.startswith("## ")]

    assert RUNBOOK == ROOT / file
    assert alert["alert"].lower() == anchor
    assert anchor in sections
    assert {"severity": "page"} == alert["labels"] or {"severity": "ticket"} == alert["labels"]
    assert {"summary", "description", "runbook_url"} == alert["annotations"].keys()


def test_the_runbook_has_no_section_without_an_alert():
    """What has gone from the rules goes from the runbook."""
    sections = re.findall(r"^## (ItemsApi\w+)$", RUNBOOK.read_text(), re.MULTILINE)

    assert {alert["alert"] for alert in ALERTS} == set(sections)


def test_the_dashboard_is_whole():
    """Every panel has a title, a unit and queries, nothing overlaps, and every data source is the variable."""
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "items-api.json").read_text())
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


def test_grafana_finds_what_it_is_given():
    """The provisioning names folders and hosts that the Compose file has."""
    compose = (ROOT / "deploy" / "compose" / "compose.yaml").read_text()
    (provider,) = yaml.safe_load((ROOT / "deploy" / "grafana" / "dashboards.yaml").read_text())["providers"]
    (source,) = yaml.safe_load((ROOT / "deploy" / "grafana" / "datasources.yaml").read_text())["datasources"]

    assert f"items-api.json:{provider['options']['path']}/items-api.json:ro" in compose
    assert "http://prometheus:9090" == source["url"]
    assert "\n  prometheus:\n" in compose
