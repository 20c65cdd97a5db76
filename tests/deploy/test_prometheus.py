"""Rules and alerts work, each alert has a section in the runbook, and the dashboard is complete."""

import json
import re
import shutil
import subprocess

import pytest
import yaml

from app import NAME
from scripts.prometheus_rule import TARGET, rendered
from tests.deploy import manifests
from tests.paths import ROOT
from tests.programs import find

FOLDER = ROOT / "deploy" / "prometheus"
RUNBOOK = ROOT / "docs" / "operations" / "alerts.md"
OBSERVE = ROOT / "docs" / "operations" / "observe.md"

RUNBOOKS = f"https://runbooks.example.com/{NAME}/alerts.html"
"""Where the runbook is published: the address that an operator replaces."""

OF_OTHERS = {"up", "kube_job_failed"}
"""Metrics of Prometheus itself and of kube-state-metrics."""


def listed_metrics():
    """The metrics in the guide for operators, with the parts of the histograms."""
    rows = re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram)", OBSERVE.read_text(), re.MULTILINE)
    parts = {"histogram": ("_bucket", "_sum", "_count")}
    return {name + part for name, kind in rows for part in parts.get(kind, ("",))}


METRICS = listed_metrics() | OF_OTHERS


def rules_of(file):
    """The rules of a file in deploy/prometheus."""
    return [rule for group in yaml.safe_load((FOLDER / file).read_text())["groups"] for rule in group["rules"]]


ALERTS = rules_of("alerts.yaml")
RECORDED = rules_of("rules.yaml")
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / f"{NAME}.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())] + [
    annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]
]


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
    """The URL leads to the section of the alert, and the severity is one that routes know."""
    page, anchor = alert["annotations"]["runbook_url"].split("#")

    assert RUNBOOKS == page
    assert alert["alert"].lower() == anchor
    assert anchor in sections()
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert {"summary", "description", "runbook_url"} == alert["annotations"].keys()


def sections():
    """The anchors of the sections of the runbook."""
    return {line.removeprefix("## ").lower() for line in RUNBOOK.read_text().splitlines() if line.startswith("## ")}


@pytest.mark.parametrize("rule", [*RECORDED, *ALERTS], ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_selects_one_job_and_keeps_its_labels(rule):
    """Series of other services with the same names do not count, and each namespace has alerts of its own."""
    plain = re.sub(r"#.*", "", rule["expr"])
    for name in METRICS:
        for matchers in re.findall(rf"(?<![\w:]){name}(?![\w:])(\{{[^}}]*\}})?", plain):
            assert f'job="{NAME}"' in matchers or (name in OF_OTHERS and f'job_name=~"{NAME}-' in matchers), name
    for kept in re.findall(r"\bby \(([^)]*)\)", plain):
        assert "namespace" in kept.split(", ")
        assert {"job", "job_name"} & set(kept.split(", "))


def test_a_recording_rule_is_named_by_the_labels_that_it_keeps():
    """level:metric:operations, as the documentation of Prometheus recommends."""
    levels = {
        "namespace_job": "namespace, job",
        "namespace_job_reason": "namespace, job, reason",
        "namespace_job_handler": "namespace, job, method, handler",
        "namespace_job_statement": "namespace, job, statement",
        "instance": "namespace, job, instance, pod",
    }
    for rule in RECORDED:
        kept = {labels.removesuffix(", le") for labels in re.findall(r"\bby \(([^)]*)\)", rule["expr"])}
        assert {levels[rule["record"].split(":")[0]]} == kept, rule["record"]


@pytest.mark.parametrize("expression", [*(rule["expr"] for rule in (*RECORDED, *ALERTS)), *QUERIES])
def test_an_expression_uses_series_that_exist(expression):
    """Each metric is listed in the guide for operators, and each recorded series is recorded."""
    plain = re.sub(r'"[^"]*"|#.*', "", expression)
    names = re.findall(r"([a-z][\w:]*)\{|\b(\w+:\w+:\w+)", plain)

    assert {"".join(name) for name in names} <= METRICS | {rule["record"] for rule in RECORDED}


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_of_the_dashboard_selects_by_job_and_namespace(query):
    """The dashboard shows one job, in the namespaces that are chosen."""
    for labels in re.findall(r"\{([^}]*)\}", query):
        assert 'job="$job"' in labels
        assert 'namespace=~"$namespace"' in labels


def test_the_prometheus_rule_has_the_same_rules():
    """`python -m scripts.prometheus_rule` has been run."""
    assert rendered() == TARGET.read_text()
    groups = yaml.safe_load(TARGET.read_text())["spec"]["groups"]
    assert [*RECORDED, *ALERTS] == [rule for group in groups for rule in group["rules"]]


def test_one_setting_changes_the_address_of_the_runbook(tmp_path):
    """Every alert of the rendered PrometheusRule then leads to the new address, and to its own section."""
    shutil.copytree(manifests.FOLDER, tmp_path / "kubernetes")
    settings = tmp_path / "kubernetes" / "components" / "monitoring" / "kustomization.yaml"
    settings.write_text(settings.read_text().replace(RUNBOOKS, "https://docs.acme.example/runbook"))
    overlay = tmp_path / "kubernetes" / "overlays" / "production"
    done = subprocess.run([manifests.KUBECTL, "kustomize", overlay], capture_output=True, text=True, check=True)
    (rule,) = (one for one in yaml.safe_load_all(done.stdout) if one["kind"] == "PrometheusRule")
    alerts = [alert for group in rule["spec"]["groups"] for alert in group["rules"] if "alert" in alert]

    assert {f"https://docs.acme.example/runbook#{alert['alert'].lower()}" for alert in ALERTS} == {
        alert["annotations"]["runbook_url"] for alert in alerts
    }


@pytest.mark.parametrize("kind", ["PodMonitor", "PrometheusRule"])
def test_the_operator_selects_the_manifest(kind):
    """It has the label of the chart's release. Series of the pods get the job that the rules select."""
    found = manifests.manifest("production", kind)

    assert "kube-prometheus-stack" == found["metadata"]["labels"]["release"]
    if kind == "PodMonitor":
        pod = manifests.manifest("production", "Deployment")["spec"]["template"]["metadata"]["labels"]
        assert NAME == pod[found["spec"]["jobLabel"]]


def test_the_alert_for_migrations_matches_their_jobs():
    """The expression finds the Job of the manifests by its name."""
    (alert,) = (alert for alert in ALERTS if alert["alert"].endswith("MigrationFailed"))
    (pattern,) = re.findall(r'job_name=~"([^"]+)"', alert["expr"])

    assert [one["metadata"]["name"] for one in manifests.manifests("production") if one["kind"] == "Job"]
    for one in manifests.manifests("production"):
        if one["kind"] == "Job":
            assert re.fullmatch(pattern, one["metadata"]["name"])


def test_the_runbook_has_no_section_without_an_alert():
    """Each section of the runbook belongs to an alert."""
    names = re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE)

    assert {alert["alert"] for alert in ALERTS} == set(names)


def test_the_dashboard_is_complete():
    """Every panel has a title, a unit and queries, no panels overlap, and every data source is the variable."""
    panels = DASHBOARD["panels"]
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
        for link in panel.get("links", ()):
            page, anchor = link["url"].split("#")
            assert RUNBOOKS == page
            assert anchor in sections()
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_the_provisioning_of_grafana_matches_compose():
    """The folders and hosts in the provisioning exist in the Compose file."""
    compose = (ROOT / "deploy" / "compose" / "compose.yaml").read_text()
    (provider,) = yaml.safe_load((ROOT / "deploy" / "grafana" / "dashboards.yaml").read_text())["providers"]
    (source,) = yaml.safe_load((ROOT / "deploy" / "grafana" / "datasources.yaml").read_text())["datasources"]

    assert f"{NAME}.json:{provider['options']['path']}/{NAME}.json:ro" in compose
    assert "http://prometheus:9090" == source["url"]
    assert "\n  prometheus:\n" in compose
