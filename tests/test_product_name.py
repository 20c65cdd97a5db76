"""The name of the product stands in `app/__init__.py`; everything else reads it or is compared with it here."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from app import NAME, TITLE
from tests.paths import ROOT

FILES = {
    ".github/CODEOWNERS",
    "CHANGELOG.md",
    "Dockerfile",
    "LICENSE",
    "README.md",
    "app/__init__.py",
    "deploy/README.md",
    "deploy/compose/compose.yaml",
    "deploy/grafana/dashboards.yaml",
    f"deploy/grafana/{NAME}.json",
    "deploy/kubernetes/base/deployment.yaml",
    "deploy/kubernetes/base/horizontal-pod-autoscaler.yaml",
    "deploy/kubernetes/base/kustomization.yaml",
    "deploy/kubernetes/base/migration.yaml",
    "deploy/kubernetes/base/network-policy.yaml",
    "deploy/kubernetes/base/pod-disruption-budget.yaml",
    "deploy/kubernetes/base/service-account.yaml",
    "deploy/kubernetes/base/service.yaml",
    "deploy/kubernetes/components/authentication/kustomization.yaml",
    "deploy/kubernetes/components/monitoring/kustomization.yaml",
    "deploy/kubernetes/components/monitoring/pod-monitor.yaml",
    "deploy/kubernetes/components/monitoring/prometheus-rule.yaml",
    "deploy/kubernetes/components/pgbouncer/pgbouncer.yaml",
    "deploy/kubernetes/components/replicas/kustomization.yaml",
    "deploy/kubernetes/components/tracing/kustomization.yaml",
    "deploy/kubernetes/overlays/development/kustomization.yaml",
    "deploy/kubernetes/overlays/development/namespace.yaml",
    "deploy/kubernetes/overlays/production/kustomization.yaml",
    "deploy/pgbouncer/pgbouncer.ini",
    "deploy/postgresql/roles.sql",
    "deploy/prometheus/alerts.test.yaml",
    "deploy/prometheus/alerts.yaml",
    "deploy/prometheus/prometheus.yaml",
    "deploy/prometheus/rules.yaml",
    "docs/decisions/0013-three-roles.md",
    "docs/decisions/0015-version-table.md",
    "docs/index.md",
    "docs/operations/alerts.md",
    "docs/operations/argocd.md",
    "docs/operations/authentication.md",
    "docs/operations/deploy.md",
    "docs/operations/failures.md",
    "docs/operations/flux.md",
    "docs/operations/migrations.md",
    "docs/operations/observe.md",
    "docs/operations/openshift.md",
    "docs/operations/recovery.md",
    "docs/operations/replicas.md",
    "docs/operations/secrets.md",
    "docs/operations/slo.md",
    "docs/operations/tracing.md",
    "docs/operations/upgrade.md",
    "pyproject.toml",
    "requirements/development.txt",
    "requirements/patroni.txt",
    "requirements/runtime.txt",
    "requirements/tracing.txt",
    "scripts/service_names.py",
}
"""The files to edit to rename the product."""

WORDS = NAME.split("-")

ANY_FORM = re.compile("[-_ ]?".join(WORDS), re.IGNORECASE)
"""The words of the name in upper or lower case, with a hyphen, an underscore, a space or nothing between them."""

CAMEL = "".join(word.capitalize() for word in WORDS)

SKIPPED = {"_site", "__pycache__"}


def text(path: str) -> str:
    """The contents of a file of the project."""
    return (ROOT / path).read_text(encoding="utf-8")


def files(folder: Path = ROOT) -> Iterator[Path]:
    """The project's files, without caches and environments."""
    for path in folder.iterdir():
        if path.name in SKIPPED or (path.name.startswith(".") and path.name not in {".ci", ".github"}):
            continue
        if path.is_dir():
            yield from files(path)
        else:
            yield path


def test_these_files_and_no_others_carry_the_name():
    """A search for the name, in any form, finds the listed files."""
    found = {str(path.relative_to(ROOT)) for path in files() if ANY_FORM.search(path.read_text(errors="ignore"))}

    assert FILES == found


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("README.md", r"^# (.+)$", TITLE),
        ("Dockerfile", r'image\.title="(.+)"', NAME),
        ("deploy/compose/compose.yaml", r"image: (\S+):\$\{VERSION", NAME),
        ("deploy/grafana/dashboards.yaml", r"- name: (\S+)", NAME),
        ("deploy/kubernetes/base/kustomization.yaml", r"app\.kubernetes\.io/name: (\S+)", NAME),
        ("deploy/kubernetes/base/deployment.yaml", r"app\.kubernetes\.io/name: (\S+)", NAME),
        ("deploy/kubernetes/base/deployment.yaml", r"image: (\S+)", NAME),
        ("deploy/kubernetes/base/migration.yaml", r"image: (\S+)", NAME),
        ("deploy/kubernetes/base/service.yaml", r"app\.kubernetes\.io/name: (\S+)", NAME),
        ("deploy/prometheus/prometheus.yaml", r"job_name: (\S+)", NAME),
        ("deploy/prometheus/alerts.yaml", r'job="([^"]+)"', NAME),
        ("deploy/prometheus/alerts.yaml", rf"alert: ((?:[A-Z][a-z0-9]+){{{len(WORDS)}}})", CAMEL),
        ("docs/operations/alerts.md", rf"^## ((?:[A-Z][a-z0-9]+){{{len(WORDS)}}})", CAMEL),
        ("docs/operations/observe.md", r"`(\w+)_build_info`", NAME.replace("-", "_")),
        ("requirements/runtime.txt", r"(\S+) \(pyproject\.toml\)", NAME),
        ("requirements/tracing.txt", r"(\S+) \(pyproject\.toml(?::tracing)?\)", NAME),
    ],
)
def test_each_file_uses_the_same_name(path, pattern, expected):
    """Every place of the file that holds the name holds this one."""
    found = re.findall(pattern, text(path), re.MULTILINE)

    assert {expected} == set(found)


def test_the_project_and_the_dashboard_use_the_same_name():
    """The metadata of the project, the title of the dashboard and the groups of rules."""
    dashboard = json.loads(text(f"deploy/grafana/{NAME}.json"))
    groups = [
        group["name"]
        for file in ("rules", "alerts")
        for group in yaml.safe_load(text(f"deploy/prometheus/{file}.yaml"))["groups"]
    ]

    assert NAME == tomllib.loads(text("pyproject.toml"))["project"]["name"]
    assert (NAME, TITLE) == (dashboard["uid"], dashboard["title"])
    assert all(group == NAME or group.startswith(f"{NAME}-") for group in groups), groups
