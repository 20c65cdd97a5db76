"""The whole stack on one machine: it comes up by one command, serves, and Prometheus sees all that it is asked for."""

import json
import re
import time

import httpx
import pytest
import yaml

from tests.deploy.conftest import REVISION
from tests.paths import ROOT
from tests.processes.load import Request, load
from tests.processes.server import free_port

FILE = ROOT / "deploy" / "compose" / "compose.yaml"

RULES = [
    rule
    for name in ("rules", "alerts")
    for group in yaml.safe_load((ROOT / "deploy" / "prometheus" / f"{name}.yaml").read_text())["groups"]
    for rule in group["rules"]
]

UNKNOWN_BEHIND_PGBOUNCER = {"connection_budget_connections"}
"""How many connections the server has is not asked through PgBouncer."""

JSON = (("Content-Type", "application/json"),)
REQUESTS = [
    Request(target="/items"),
    Request(target="/items/1"),
    Request(target="/items/999999"),
    Request(target="/nothing"),
    Request(method="POST", target="/items", headers=JSON, body=b'{"name": "Measured"}'),
    Request(method="POST", target="/items", headers=JSON, body=b"{}"),
    Request(method="PATCH", target="/items/1", headers=JSON, body=b'{"price": 1.5}'),
]


@pytest.fixture(scope="module")
def ports(images):
    """The stack without Grafana, whose image has no stand-in, and where it listens; its volumes go with it."""
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
    """Asks Prometheus, after the service has been under load for several scrapes."""
    with load(int(ports["PORT"]), rate=60, kept=10, fresh=2, request=lambda n: REQUESTS[n % len(REQUESTS)]) as report:
        time.sleep(50)
    assert {200, 201, 404, 422} <= set(report.statuses)
    assert [] == report.failures()

    def ask(expression):
        answer = httpx.get(f"http://127.0.0.1:{ports['PROMETHEUS_PORT']}/api/v1/query", params={"query": expression})
        body = answer.json()
        assert "success" == body["status"], (expression, body)
        return body["data"]["result"]

    return ask


def selectors(expression):
    """Every selector of series in an expression, without its range."""
    found = re.findall(
        r"\b([a-z_][a-z0-9_:]*(?:\{[^}]*\})?)(?=[\s)\[]|$)", re.sub(r"by \([^)]*\)|on \([^)]*\)", "", expression)
    )
    return {
        one for one in found if not re.fullmatch(r"sum|max|min|rate|increase|and|or|by|on|le|time|absent|unless", one)
    }


def dashboard_expressions():
    """Every query of the dashboard, with the variables that Grafana puts in."""
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "items-api.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    expressions += [
        variable["definition"].removeprefix("label_values(").rpartition(",")[0]
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "query"
    ]
    variables = {"$__rate_interval": "1m", "$job": "items-api", "$instance": ".*"}
    for name, value in variables.items():
        expressions = [expression.replace(name, value) for expression in expressions]
    return expressions


def name_of(expression):
    """The name of a selector's series."""
    return expression.partition("{")[0]


def test_it_serves_through_pgbouncer(ports):
    """An item is stored and read, and what is for operators does not answer at the public port."""
    with httpx.Client(base_url=f"http://127.0.0.1:{ports['PORT']}") as client:
        made = client.post("/items", json={"name": "Composed"})
        read = client.get(made.headers["location"])
        hidden = [client.get(path).status_code for path in ("/metrics", "/health/ready")]

    assert (201, 200, [404, 404]) == (made.status_code, read.status_code, hidden)


def test_each_service_has_secrets_of_its_own(images, ports):
    """They are drawn anew for each stack, and no environment, command or log names one."""
    for service in ("api", "postgres", "pgbouncer", "redis", "migrate"):
        container = images.compose(FILE, "ps", "--all", "--quiet", service, environment=ports).strip()
        shown = json.dumps(images.inspect(container)["Config"]) + images.docker("logs", container, check=False)
        assert not re.search(r"://[^/\s]+:[^/\s]+@", shown), service


@pytest.mark.parametrize("rule", [rule for rule in RULES if "record" in rule], ids=lambda rule: rule["record"])
def test_a_recorded_rule_has_data(prometheus, rule):
    """Its expression, and what Prometheus has recorded of it."""
    assert prometheus(rule["expr"])
    assert prometheus(rule["record"])


@pytest.mark.parametrize("rule", [rule for rule in RULES if "alert" in rule], ids=lambda rule: rule["alert"])
def test_an_alert_looks_at_series_that_exist(prometheus, rule):
    """A misspelt name would keep it silent for ever. None of them fires on a service that is well."""
    found = selectors(rule["expr"])
    assert found
    missing = {name_of(selector) for selector in found if not prometheus(selector)}

    assert missing <= UNKNOWN_BEHIND_PGBOUNCER
    assert [] == prometheus(f'ALERTS{{alertname="{rule["alert"]}", alertstate="firing"}}')


@pytest.mark.parametrize("expression", dashboard_expressions())
def test_a_query_of_the_dashboard_has_data(prometheus, expression):
    """No panel is empty under load."""
    assert prometheus(expression) or {name_of(one) for one in selectors(expression)} & UNKNOWN_BEHIND_PGBOUNCER


def test_the_build_is_known(prometheus):
    """The revision that the image was built from stands among the metrics."""
    assert REVISION in {sample["metric"]["revision"] for sample in prometheus("items_api_build_info")}
