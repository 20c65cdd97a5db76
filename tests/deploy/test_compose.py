"""The stack of Compose: one command starts it, it serves, and Prometheus has data for all rules and panels."""

import json
import re
import time

import httpx
import pytest
import yaml

from app import NAME
from tests.deploy.conftest import REVISION
from tests.paths import ROOT
from tests.processes.load import Request, load
from tests.processes.server import free_port
from tests.resources import creation

FILE = ROOT / "deploy" / "compose" / "compose.yaml"

RULES = [
    rule
    for name in ("rules", "alerts")
    for group in yaml.safe_load((ROOT / "deploy" / "prometheus" / f"{name}.yaml").read_text())["groups"]
    for rule in group["rules"]
]

UNKNOWN_HERE = {
    "auth_key_fetches_total",
    "auth_keys_fetched_timestamp_seconds",
    "auth_requests_total",
    "connection_budget_connections",
    "database_reads_total",
    "database_replica_lag_seconds",
    "database_replica_pool_in_use",
    "database_replica_pool_open",
    "database_replica_pool_size",
    "database_replica_pool_slow_in_use",
    "database_replica_pool_slow_waiting",
    "database_replica_pool_waiting",
    "database_replica_usable",
    "idempotency_purge_last_run_timestamp_seconds",
    "kube_job_failed",
}
"""There is no issuer of tokens here, and no replica. The service does not read the server's limits through PgBouncer.
The first idempotency keys are deleted minutes later, and the jobs of Kubernetes exist there only."""

JSON = (("Content-Type", "application/json"),)
PATH, BODY = creation()
REQUESTS = [
    Request(target=PATH),
    Request(target=f"{PATH}/1"),
    Request(target=f"{PATH}/999999"),
    Request(target="/nothing"),
    Request(method="POST", target=PATH, headers=JSON, body=json.dumps(BODY).encode()),
    Request(method="POST", target=PATH, headers=JSON, body=b"{}"),
    Request(method="PATCH", target=f"{PATH}/1", headers=JSON, body=json.dumps(BODY).encode()),
]


@pytest.fixture(scope="module")
def ports(images):
    """The ports of the running stack. Grafana is left out, because there is no image of it."""
    found = {"PORT": str(free_port()), "PROMETHEUS_PORT": str(free_port()), "REVISION": REVISION}
    services = images.compose(FILE, "config", "--services").split()
    assert "grafana" in services
    services.remove("grafana")
    try:
        images.compose(FILE, "up", "--detach", "--no-build", "--pull=never", "--wait", *services, environment=found)
        yield found
    finally:
        images.compose(FILE, "down", "--volumes", "--timeout=10", environment=found)


@pytest.fixture(scope="module")
def prometheus(ports):
    """A function that queries Prometheus, after several scrapes of the service under load."""
    with load(int(ports["PORT"]), rate=60, kept=10, fresh=2, request=lambda n: REQUESTS[n % len(REQUESTS)]) as report:
        time.sleep(50)
    assert {200, 201, 404, 422} <= set(report.statuses)
    assert [] == report.failures()

    def query(expression):
        answer = httpx.get(f"http://127.0.0.1:{ports['PROMETHEUS_PORT']}/api/v1/query", params={"query": expression})
        body = answer.json()
        assert "success" == body["status"], (expression, body)
        return body["data"]["result"]

    return query


def selectors(expression):
    """The selectors of series in an expression, without their ranges."""
    found = re.findall(
        r"\b([a-z_][a-z0-9_:]*(?:\{[^}]*\})?)(?=[\s)\[]|$)", re.sub(r"by \([^)]*\)|on \([^)]*\)", "", expression)
    )
    return {
        one for one in found if not re.fullmatch(r"sum|max|min|rate|increase|and|or|by|on|le|time|absent|unless", one)
    }


def dashboard_expressions():
    """Every query of the dashboard, with the variables replaced as Grafana replaces them."""
    dashboard = json.loads((ROOT / "deploy" / "grafana" / f"{NAME}.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    expressions += [
        variable["definition"].removeprefix("label_values(").rpartition(",")[0]
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "query"
    ]
    variables = {"$__rate_interval": "1m", "$job": NAME, "$namespace": ".*", "$instance": ".*"}
    for name, value in variables.items():
        expressions = [expression.replace(name, value) for expression in expressions]
    return expressions


def name_of(expression):
    """The metric name of a selector."""
    return expression.partition("{")[0]


def test_the_stack_serves_through_pgbouncer(ports):
    """A row is created and read. The paths for operators answer 404 at the public port."""
    with httpx.Client(base_url=f"http://127.0.0.1:{ports['PORT']}") as client:
        made = client.post(PATH, json=BODY)
        read = client.get(made.headers["location"])
        hidden = [client.get(path).status_code for path in ("/metrics", "/health/ready")]

    assert (201, 200, [404, 404]) == (made.status_code, read.status_code, hidden)


def test_no_secret_is_in_a_container_configuration_or_log(images, ports):
    """No environment, command or log of a service contains a password or a URL with a password."""
    files = [("postgres", "superuser"), ("postgres", "items_owner"), ("postgres", "items_app"), ("redis", "password")]
    secrets = [
        images.compose(FILE, "exec", "--no-TTY", service, "cat", f"/run/secrets/{file}", environment=ports).strip()
        for service, file in files
    ]
    assert len(set(secrets)) == len(files)
    assert all(len(secret) >= 32 for secret in secrets)
    for service in ("api", "postgres", "pgbouncer", "redis", "migrate"):
        container = images.compose(FILE, "ps", "--all", "--quiet", service, environment=ports).strip()
        shown = json.dumps(images.inspect(container)["Config"]) + images.docker("logs", container, check=False)
        assert not re.search(r"://[^/\s]+:[^/\s]+@", shown), service
        assert not [file for file, secret in zip(files, secrets, strict=True) if secret in shown], service


@pytest.mark.parametrize("rule", [rule for rule in RULES if "record" in rule], ids=lambda rule: rule["record"])
def test_a_recording_rule_has_data(prometheus, rule):
    """The expression has a result, and Prometheus has recorded it."""
    assert prometheus(rule["expr"])
    assert prometheus(rule["record"])


@pytest.mark.parametrize("rule", [rule for rule in RULES if "alert" in rule], ids=lambda rule: rule["alert"])
def test_an_alert_uses_series_that_exist(prometheus, rule):
    """Every series in the expression exists, and the alert does not fire for a healthy service."""
    found = selectors(rule["expr"])
    assert found
    missing = {name_of(selector) for selector in found if not prometheus(selector)}

    assert missing <= UNKNOWN_HERE
    assert [] == prometheus(f'ALERTS{{alertname="{rule["alert"]}", alertstate="firing"}}')


@pytest.mark.parametrize("expression", dashboard_expressions())
def test_a_dashboard_query_has_data(prometheus, expression):
    """Every panel has data when the service is under load."""
    assert prometheus(expression) or {name_of(one) for one in selectors(expression)} & UNKNOWN_HERE


def test_the_metrics_contain_the_revision(prometheus):
    """The build info has the revision from which the image was built."""
    assert REVISION in {sample["metric"]["revision"] for sample in prometheus(f"{NAME.replace('-', '_')}_build_info")}
