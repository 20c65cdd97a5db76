from fastapi.routing import APIRoute

from app.middleware.head import HeadAsGet
from tests.answers import problem


async def nothing(*_):
    """Have nothing to give, and take everything."""
    return {}


async def run(app, method, kind="http"):
    """The scope as it is afterwards, and what was sent."""
    sent = []

    async def send(message):
        sent.append((scope["method"], message))

    scope = {"type": kind, "method": method, "path": "/"}
    await HeadAsGet(app)(scope, nothing, send)
    return scope, sent


async def answer_in_parts(scope, _receive, send):
    """Answer with what was asked, in two parts."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
    await send({"type": "http.response.body", "body": scope["method"].encode(), "more_body": True})
    await send({"type": "http.response.body", "body": b"end"})


async def test_routes_see_a_get_and_everybody_else_a_head():
    """The answer keeps its headers and loses its body, and those outside never see the method change."""
    scope, sent = await run(answer_in_parts, "HEAD")

    assert "HEAD" == scope["method"]
    assert ["HEAD"] * 3 == [method for method, _ in sent]
    assert [(b"content-length", b"6")] == sent[0][1]["headers"]
    assert [b"", b""] == [message["body"] for _, message in sent[1:]]


async def test_other_methods_are_left_alone():
    """A GET keeps its body."""
    _, sent = await run(answer_in_parts, "GET")

    assert b"GETend" == b"".join(message["body"] for _, message in sent[1:])


async def test_head_is_restored_after_a_failure():
    """A failure below is answered and logged as that of a HEAD."""

    async def fail(_scope, _receive, _send):
        raise ValueError

    scope = {"type": "http", "method": "HEAD", "path": "/"}
    try:
        await HeadAsGet(fail)(scope, nothing, nothing)
    except ValueError:
        assert "HEAD" == scope["method"]


async def test_every_route_tells_all_its_methods(client):
    """At each path, each method is either answered or refused with the whole list of those that are."""
    app = client._transport.app
    declared: dict[str, set[str]] = {}
    for route in app.routes:
        assert isinstance(route, APIRoute) or route.path == "/openapi.json", route
        declared.setdefault(route.path, set()).update(route.methods)

    for path, methods in declared.items():
        answered = methods | ({"HEAD"} if "GET" in methods else set())
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"):
            response = await client.request(method, path.replace("{item_id}", "1"))
            if method in answered:
                assert 405 != response.status_code, (method, path)
            else:
                problem(response, 405, "method_not_allowed")
                assert answered == set(response.headers["allow"].split(", ")), (method, path)
