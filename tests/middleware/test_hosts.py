import httpx
import pytest

from app.errors import RequestError
from app.middleware.header_fields import read_fields
from app.middleware.hosts import HostCheck, OpsPort
from app.settings import Settings
from tests.answers import problem
from tests.sample.app import create_app


def passes(part, *, hosts=("testserver",), path="/samples", server=("127.0.0.1", 8000), version="1.1"):
    """True if the request passes the check, else the code of its refusal."""
    fields = read_fields((b"host", host.encode()) for host in hosts)
    try:
        part.check({"type": "http", "http_version": version, "path": path, "server": server}, fields)
    except RequestError as error:
        return error.code
    return True


@pytest.fixture
def named():
    """A check with a list of names."""
    return HostCheck(["Service.example", "*.example.org", "[::1]"])


@pytest.mark.parametrize("path", ["/samples", "/health", "/health/ready", "/"])
@pytest.mark.parametrize("allowed", [["*"], ["service.example"]])
def test_a_request_must_have_one_host(path, allowed):
    """No Host, an empty one and two are refused on every path."""
    check = HostCheck(allowed)

    assert passes(check, hosts=["service.example"], path=path) is True
    for hosts in ([], [""], ["service.example", "service.example"], ["service.example", "other.example"]):
        assert "bad_host" == passes(check, hosts=hosts, path=path)


@pytest.mark.parametrize(
    ("allowed", "path", "result"),
    [
        (["*"], "/health", True),
        (["*"], "/samples", True),
        (["service.example"], "/health", True),
        (["service.example"], "/health/ready", True),
        (["service.example"], "/samples", "bad_host"),
        (["*.example.org"], "/samples", "bad_host"),
    ],
)
def test_http_1_0_needs_no_host(allowed, path, result):
    """HTTP/1.0 without Host is served where every host is allowed, and on the probes; two hosts are refused."""
    check = HostCheck(allowed)

    assert result == passes(check, hosts=[], path=path, version="1.0")
    for hosts in ([""], ["service.example", "service.example"]):
        assert "bad_host" == passes(check, hosts=hosts, path=path, version="1.0")


@pytest.mark.parametrize(
    "host",
    [
        "service.example",
        "SERVICE.EXAMPLE",
        "service.example:8000",
        "service.example.",
        "a.example.org.:8000",
        "a.example.org",
        "a.b.example.org:1",
        "[::1]",
        "[::1]:8000",
    ],
)
def test_a_listed_name_is_accepted(named, host):
    """Case, port and the dot of a full name are ignored, and `*.` matches all subdomains."""
    assert passes(named, hosts=[host]) is True


@pytest.mark.parametrize(
    "host",
    [
        "other.example",
        "service.example.evil",
        "evilservice.example",
        "example.org",
        "evilexample.org",
        "127.0.0.1",
        "[::2]",
        "::1",
        ":",
        "*.example.org.evil",
    ],
)
def test_any_other_name_is_refused(named, host):
    """A name that is only similar to a listed one is refused."""
    assert "bad_host" == passes(named, hosts=[host])


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/metrics"])
def test_probes_may_use_an_address(named, path):
    """Probes and scrapes are served whatever host they name."""
    assert passes(named, hosts=["10.0.0.7:8000"], path=path) is True


@pytest.mark.parametrize(
    ("path", "at_port", "at_ops_port"),
    [("/samples", True, "not_found"), ("/docs", True, "not_found"), ("/", True, "not_found"),
    ("/nowhere", True, "not_found"),
     ("/metrics", "not_found", True), ("/health/ready", "not_found", True), ("/health", True, True)],
)  # fmt: skip
def test_each_port_serves_its_own_paths(path, at_port, at_ops_port):
    """The operators' paths are served on OPS_PORT only, all others on the main port only, and /health on both."""
    ops = OpsPort(9000)

    assert at_port == passes(ops, path=path, server=("127.0.0.1", 8000))
    assert at_ops_port == passes(ops, path=path, server=("10.0.0.1", 9000))
    assert at_port == passes(ops, path=path, server=None)


async def test_a_refusal_is_a_problem():
    """An unlisted host, two hosts and no host are answered 400, without repeating them."""
    app = create_app(
        Settings.load(
            database_url="postgresql://a@b/c", allowed_hosts="service.example", rate_limit_enabled=False, _env_file=None
        )
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://evil.example") as client:
        other = await client.get("/")
        two = await client.get("/", headers=[("Host", "service.example"), ("Host", "service.example")])
        request = client.build_request("GET", "/")
        del request.headers["host"]
        none = await client.send(request)
        served = await client.get("/", headers={"Host": "service.example"})

    for answer in (other, two, none):
        assert "example" not in str(problem(answer, 400, "bad_host"))
    assert 200 == served.status_code


async def test_the_application_uses_the_ops_port():
    """With OPS_PORT set, the main port answers 404 to the operators' paths."""
    app = create_app(
        Settings.load(database_url="postgresql://a@b/c", ops_port=9000, rate_limit_enabled=False, _env_file=None)
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver:8000") as client:
        problem(await client.get("/metrics"), 404, "not_found")
        problem(await client.get("http://testserver:9000/samples"), 404, "not_found")
        assert (
            200
            == (await client.get("http://testserver:9000/health")).status_code
            == (await client.get("/health")).status_code
        )
