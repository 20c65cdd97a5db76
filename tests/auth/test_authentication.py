"""The application with authentication: who is let in, and how others are refused."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest

from app.auth import keys as keys_module
from app.auth.tokens import _SIGNATURES
from app.settings import Settings
from tests.answers import problem
from tests.application import opened
from tests.issuer.server import DISCOVERY, KEYS
from tests.issuer.tokens import make_key
from tests.sample.app import create_app

pytestmark = pytest.mark.anyio

BODY = {"name": "Salt"}


@pytest.fixture
def reader(issuer, key):
    """The header of a client that may read."""
    return {"Authorization": f"Bearer {key.token(issuer.url, scope='samples:read')}"}


def bearer(token: str) -> dict[str, str]:
    """The header with a token."""
    return {"Authorization": f"Bearer {token}"}


async def test_a_good_token_is_let_in(api, reader):
    """With the route's scope the answer is the route's; a remembered token as well."""
    for _ in range(2):
        assert 200 == (await api.get("/samples", headers=reader)).status_code


async def test_the_scheme_in_any_case(api, reader):
    """RFC 9110: the name of a scheme does not depend on case."""
    for scheme in ("bearer", "BEARER", "Bearer "):
        headers = {"Authorization": reader["Authorization"].replace("Bearer", scheme)}
        assert 200 == (await api.get("/samples", headers=headers)).status_code


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer"}, {"Authorization": ""}]
)
async def test_a_request_without_a_token(api, headers):
    """The answer is 401 and names the scheme, without an error, as RFC 6750 wants it."""
    answer = await api.get("/samples", headers=headers)

    problem(answer, 401, "authentication_required")
    assert "Bearer" == answer.headers["WWW-Authenticate"]


async def test_two_tokens(api, reader):
    """Two Authorization headers are refused, even if they are equal."""
    twice = [("Authorization", reader["Authorization"])] * 2

    problem(await api.get("/samples", headers=twice), 401, "authentication_required")


async def test_a_token_elsewhere_is_not_read(api, issuer, key):
    """Not in the query, not in a body, not in a cookie."""
    token = key.token(issuer.url, scope="samples:read samples:write")

    for request in (
        {"params": {"access_token": token}},
        {"headers": {"Cookie": f"access_token={token}"}},
        {"headers": {"Content-Type": "application/x-www-form-urlencoded"}, "content": f"access_token={token}"},
    ):
        answer = await api.request("GET", "/samples", **request)
        problem(answer, 401, "authentication_required")


async def test_a_bad_token(api, issuer, key, lines):
    """The answer says only that it is not valid. The log says why, and nothing has the token."""
    token = key.token(issuer.url, aud="another")
    lines()
    answer = await api.get("/samples", headers=bearer(token))
    served = [line for line in lines() if line["event"] == "request_served"]

    problem(answer, 401, "invalid_token")
    assert (
        'Bearer error="invalid_token", error_description="The access token is not valid."'
        == answer.headers["WWW-Authenticate"]
    )
    assert "another" not in answer.text
    assert ["aud is 'another', without AUTH_AUDIENCE"] == [line["token_refused"] for line in served]
    assert token not in str(served)


async def test_a_scope_too_few(api, reader):
    """The answer is 403 and names the scope. Nothing of the request is executed, and its body is not judged."""
    answer = await api.post("/samples", headers=reader, content=b"{")

    problem(answer, 403, "insufficient_scope")
    assert 'Bearer error="insufficient_scope", scope="samples:write"' == answer.headers["WWW-Authenticate"]


async def test_what_exists_is_not_told(api, reader):
    """Without a token an unknown path and an unknown method are 401, and with one 404 and 405."""
    for method, path, status in [("GET", "/none", 404), ("PATCH", "/samples", 405), ("DELETE", "/health", 405)]:
        assert 401 == (await api.request(method, path)).status_code
        assert status == (await api.request(method, path, headers=reader)).status_code


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/health", "/health/ready", "/metrics"])
async def test_the_open_paths(api, path):
    """They need no token, and a bad one does not matter. Another method needs one."""
    assert 200 == (await api.get(path)).status_code
    assert 200 == (await api.head(path, headers=bearer("bad"))).status_code
    assert 401 == (await api.post(path)).status_code


@pytest.mark.parametrize(
    "path", ["//docs", "/docs/", "/docs/../samples", "/docs;a", "/%64ocs/start.jsx", "/health//ready"]
)
async def test_what_looks_like_an_open_path(api, path):
    """Only exactly these paths are open."""
    assert 401 == (await api.get(f"http://testserver{path}")).status_code


async def test_the_log_names_who_sent_a_request(api, reader, lines):
    """`subject` and `client_id`; never the token."""
    lines()
    await api.get("/samples", headers=reader)
    (served,) = [line for line in lines() if line["event"] == "request_served"]

    assert ("user-1", "client-1") == (served["subject"], served["client_id"])
    assert reader["Authorization"].split(".")[2] not in str(served)


async def test_the_metrics_count_what_became_of_requests(api, issuer, key, reader):
    """One outcome for each request that needs a token."""
    await api.get("/samples")
    await api.get("/samples", headers=bearer("bad"))
    await api.get("/samples", headers=reader)
    await api.post("/samples", headers=reader, json=BODY)
    await api.get("/samples", headers=bearer(make_key("other").token(issuer.url)))
    await api.get("/samples", headers=bearer(make_key(key.key_id).token(issuer.url)))
    scraped = (await api.get("/metrics")).text

    for outcome in ("missing", "malformed", "accepted", "insufficient_scope", "unknown_key", "bad_signature"):
        assert f'auth_requests_total{{outcome="{outcome}"}} 1.0\n' in scraped
    assert 'auth_requests_total{outcome="expired"} 0.0\n' in scraped
    assert 'auth_key_fetches_total{outcome="ok"} 1.0\n' in scraped


async def test_an_idempotency_key_belongs_to_its_subject(api, issuer, key):
    """Two subjects with one key make two rows, and each gets its own first answer again."""

    async def create(subject: str) -> tuple[int, str | None]:
        token = key.token(issuer.url, sub=subject, scope="samples:write")
        answer = await api.post("/samples", headers={**bearer(token), "Idempotency-Key": "one"}, json=BODY)
        assert 201 == answer.status_code
        return answer.json()["id"], answer.headers.get("Idempotency-Replayed")

    first, second = await create("user-1"), await create("user-2")

    assert first[0] != second[0]
    assert [(first[0], "true"), (second[0], "true")] == [await create("user-1"), await create("user-2")]


class TestLimits:
    """Requests are counted by subject, and what is refused by address."""

    @pytest.fixture
    def protected(self, protected: Settings) -> Settings:
        """Settings with authentication and small quotas."""
        return protected.model_copy(update={"rate_limit_enabled": True, "rate_limit_read": "3/minute"})

    async def test_subjects_do_not_share_a_quota(self, api, issuer, key):
        """Although both have the same address, and one subject has two tokens."""

        def tokens(subject: str, number: int) -> list[str]:
            return [key.token(issuer.url, sub=subject, scope="samples:read") for _ in range(number)]

        first = [(await api.get("/samples", headers=bearer(token))).status_code for token in tokens("user-1", 4)]
        second = [(await api.get("/samples", headers=bearer(token))).status_code for token in tokens("user-2", 4)]

        assert [200, 200, 200, 429] == first == second

    async def test_guesses_are_limited_by_address(self, api, issuer, key, reader):
        """After three bad tokens no new token is verified, and a client that is known is served."""
        assert 200 == (await api.get("/samples", headers=reader)).status_code
        guesses = [await api.get("/samples", headers=bearer(f"a.b.{number}")) for number in range(5)]

        assert [401, 401, 401, 429, 429] == [answer.status_code for answer in guesses]
        assert guesses[3].headers["Retry-After"]
        assert ["2", "1", "0", "0", "0"] == [answer.headers["RateLimit"][9] for answer in guesses]
        new = bearer(key.token(issuer.url, sub="user-2", scope="samples:read"))
        assert 429 == (await api.get("/samples", headers=new)).status_code
        assert 200 == (await api.get("/samples", headers=reader)).status_code

    async def test_requests_without_a_token_are_limited_by_address(self, api):
        """Also on paths that do not exist."""
        assert [401, 401, 401, 429] == [(await api.get("/none")).status_code for _ in range(4)]


def test_the_wait_for_an_unknown_key_is_short():
    """One second, and one fetch in ten."""
    assert (1, 10) == (keys_module.UNKNOWN_KEY_WAIT_SECONDS, keys_module.UNKNOWN_KEY_SECONDS)


class TestUnknownKeys:
    """A token whose key is not known causes a fetch and waits for it."""

    @pytest.fixture
    async def api(self, protected: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
        """A client of the application, ten seconds after the keys were fetched."""
        async with opened(protected) as running:
            clock = time.monotonic
            monkeypatch.setattr(keys_module, "time", SimpleNamespace(monotonic=lambda: clock() + 10))
            yield running

    async def test_a_token_of_a_key_that_was_just_published(self, api, issuer):
        """All such requests are accepted, after one fetch."""
        new = make_key("new", "EdDSA")
        issuer.keys = [*issuer.keys, new.jwk]
        tokens = [new.token(issuer.url, scope="samples:read", jti=str(number)) for number in range(20)]

        assert [200] * 20 == [answer.status_code for answer in await answers(api, tokens)]
        assert 2 == issuer.count(KEYS)

    async def test_a_key_that_is_not_published(self, api, issuer):
        """The answer is 401 after the fetch. Before another fetch may be made it is 401 at once."""
        invented = make_key("invented", "EdDSA").token(issuer.url)
        problem(await api.get("/samples", headers=bearer(invented)), 401, "invalid_token")
        assert 2 == issuer.count(KEYS)

        issuer.fault = "frozen"
        with anyio.fail_after(0.9):
            problem(await api.get("/samples", headers=bearer(invented)), 401, "invalid_token")
        assert 2 == issuer.count(KEYS)

    async def test_an_issuer_that_does_not_answer(self, api, issuer, key, reader, monkeypatch):
        """Invented keys are refused after the wait, by one fetch. Requests with a known key do not wait."""
        monkeypatch.setattr(keys_module, "UNKNOWN_KEY_WAIT_SECONDS", 2)
        issuer.fault = "frozen"
        invented = [make_key(f"invented-{number}", "EdDSA").token(issuer.url) for number in range(20)]
        began = time.monotonic()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(expect, api, invented, {401})
            await anyio.sleep(0.1)
            for _ in range(2):
                new = key.token(issuer.url, sub="user-2", scope="samples:read")
                assert 200 == (await api.get("/samples", headers=reader)).status_code
                assert 200 == (await api.get("/samples", headers=bearer(new))).status_code
            assert time.monotonic() - began < 1.9

        assert 1.9 < time.monotonic() - began < 4.5
        assert 2 == issuer.count(DISCOVERY)

    class TestLimits:
        """Requests that wait cannot exceed the quota of their address."""

        @pytest.fixture
        def protected(self, protected: Settings) -> Settings:
            """Settings with authentication and small quotas."""
            return protected.model_copy(update={"rate_limit_enabled": True, "rate_limit_read": "3/minute"})

        async def test_requests_that_wait_together(self, api, issuer, monkeypatch):
            """When the key has come, no more signatures are verified than the quota allows."""
            new, verified, decode = make_key("new", "EdDSA"), [], _SIGNATURES.decode
            answer: Callable[[str], bytes | None] = issuer.answer
            issuer.keys = [*issuer.keys, new.jwk]

            def counting(token: bytes, public: Any) -> Any:
                verified.append(token)
                return decode(token, public)

            def slow(path: str) -> bytes | None:
                time.sleep(0.1)
                return answer(path)

            monkeypatch.setattr(_SIGNATURES, "decode", counting)
            monkeypatch.setattr(issuer, "answer", slow)
            answered = await answers(api, [new.token(issuer.url, aud="another")] * 10)

            assert [401] * 3 + [429] * 7 == sorted(answer.status_code for answer in answered)
            assert 3 == len(verified)
            assert 2 == issuer.count(KEYS)

        async def test_a_client_that_does_not_wait_for_its_answer(self, api, issuer, key):
            """It is counted all the same."""
            issuer.fault = "frozen"
            invented = make_key("invented", "EdDSA").token(issuer.url)
            waiting = asyncio.gather(*(api.get("/samples", headers=bearer(invented)) for _ in range(3)))
            with anyio.move_on_after(0.9):  # the wait for the keys is longer
                await asyncio.shield(waiting)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

            began = time.monotonic()
            assert 429 == (await api.get("/samples", headers=bearer(key.token(issuer.url)))).status_code
            assert time.monotonic() - began < 0.5
            scraped = (await api.get("/metrics")).text
            assert 'auth_requests_total{outcome="unknown_key"} 3.0\n' in scraped


async def answers(api: httpx.AsyncClient, tokens: Sequence[str]) -> list[httpx.Response]:
    """The answers to requests with these tokens, sent at the same time."""
    return await asyncio.gather(*(api.get("/samples", headers=bearer(token)) for token in tokens))


async def expect(api: httpx.AsyncClient, tokens: Sequence[str], statuses: set[int]) -> None:
    """Send them at the same time, and compare the statuses."""
    assert statuses == {answer.status_code for answer in await answers(api, tokens)}


async def test_preflights_need_no_token(protected):
    """Where pages of other origins are allowed, and only there. Refusals have the headers of CORS."""
    preflight = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "POST"}
    async with opened(protected.model_copy(update={"cors_allow_origins": ("https://app.example.com",)})) as api:
        allowed = await api.options("/samples", headers=preflight)
        refused = await api.get("/samples", headers={"Origin": "https://app.example.com"})
    async with opened(protected) as api:
        assert 401 == (await api.options("/samples", headers=preflight)).status_code

    assert 200 == allowed.status_code
    assert "authorization" in allowed.headers["Access-Control-Allow-Headers"]
    problem(refused, 401, "authentication_required")
    assert "https://app.example.com" == refused.headers["Access-Control-Allow-Origin"]


async def test_without_keys_nobody_is_let_in(protected, issuer, reader):
    """The answer is 503 and the worker is not ready, until the issuer answers. Nothing is restarted."""
    issuer.fault = "status_500"
    async with opened(protected) as api:
        problem(await api.get("/samples", headers=reader), 503, "auth_unavailable")
        not_ready = problem(await api.get("/health/ready"), 503, "not_ready")
        assert "auth_unavailable" == not_ready["checks"]["auth_keys"]

        issuer.fault = None
        await eventually_ready(api)
        assert 200 == (await api.get("/samples", headers=reader)).status_code


async def eventually_ready(api: httpx.AsyncClient) -> dict[str, Any]:
    """Wait until the worker is ready, and return its checks."""
    with anyio.fail_after(30):
        while (answer := await api.get("/health/ready")).status_code != 200:  # noqa: ASYNC110  # it is asked as a probe asks
            await anyio.sleep(0.05)
    checks: dict[str, Any] = answer.json()["checks"]
    return checks


async def test_a_websocket_is_closed(protected):
    """It is never accepted."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "websocket.connect"}

    app = create_app(protected)
    await app({"type": "websocket", "path": "/samples", "headers": [], "query_string": b"", "state": {}}, receive, send)

    assert [{"type": "websocket.close", "code": 1008}] == sent


async def test_without_an_issuer_nothing_changes(client, key):
    """A token is not read, and no header, field or scheme says anything about it."""
    answer = await client.get("/samples", headers=bearer(key.token("https://issuer.example.com", exp=0)))
    ready = await client.get("/health/ready")
    document = (await client.get("/openapi.json")).json()

    assert 200 == answer.status_code
    assert "auth_keys" not in ready.json()["checks"]
    assert "securitySchemes" not in document["components"]
    assert [] == document["security"]
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert not any({"security"} & set(operation) or "401" in operation["responses"] for operation in operations)
    assert "auth_requests_total{" not in (await client.get("/metrics")).text


async def test_the_document_says_which_scopes_are_needed(api, issuer):
    """Each operation has the schemes with its scopes, and the errors; the open ones have none."""
    document = (await api.get("/openapi.json")).json()
    paths = document["paths"]

    assert {"accessToken", "openIdConnect"} == set(document["components"]["securitySchemes"])
    discovery = f"{issuer.url}/.well-known/openid-configuration"
    assert discovery == document["components"]["securitySchemes"]["openIdConnect"]["openIdConnectUrl"]
    assert [{"accessToken": ["samples:read"]}, {"openIdConnect": ["samples:read"]}] == paths["/samples"]["get"][
        "security"
    ]
    assert {"401", "403", "503"} <= set(paths["/samples"]["post"]["responses"])
    assert "samples:write" in str(paths["/samples"]["post"]["responses"]["403"])
    assert "security" not in paths["/health"]["get"]
    assert "401" not in paths["/health"]["get"]["responses"]
