import pytest
from fastapi.routing import iter_route_contexts

from app.middleware.head import answer_head
from tests.answers import problem
from tests.middleware.parts import lifecycle


async def nothing(*_):
    """Receive nothing, and discard what is sent."""
    return {}


async def run(app, method):
    """Send a request; return its scope and the messages sent."""
    sent = []

    async def send(message):
        sent.append((scope["method"], message))

    scope = {"type": "http", "method": method, "path": "/", "headers": []}
    await lifecycle(app)(scope, nothing, send)
    return scope, sent


async def answer_in_parts(scope, _receive, send):
    """Answer with the request's method, in two parts."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
    await send({"type": "http.response.body", "body": scope["method"].encode(), "more_body": True})
    await send({"type": "http.response.body", "body": b"end"})


async def test_only_the_routes_see_a_get():
    """The response has headers and no body, and outer middleware always sees HEAD."""
    scope, sent = await run(answer_in_parts, "HEAD")

    assert "HEAD" == scope["method"]
    assert ["HEAD"] * 3 == [method for method, _ in sent]
    assert (b"content-length", b"6") in sent[0][1]["headers"]
    assert [b"", b""] == [message["body"] for _, message in sent[1:]]


async def test_other_methods_are_unchanged():
    """The response to a GET has its body."""
    _, sent = await run(answer_in_parts, "GET")

    assert b"GETend" == b"".join(message["body"] for _, message in sent[1:])


async def test_head_is_restored_after_a_failure():
    """Outer middleware sees HEAD after an exception."""

    async def fail(scope, _receive, _send):
        assert "GET" == scope["method"]
        raise ValueError("in the route")

    scope = {"type": "http", "method": "HEAD", "path": "/"}
    with pytest.raises(ValueError, match="in the route"):
        await answer_head(fail, scope, nothing, nothing)

    assert "HEAD" == scope["method"]


async def test_a_405_lists_all_methods_of_its_path(client):
    """On each path, each method is either served or answered 405 with all methods that are served."""
    app = client._transport.app
    declared: dict[str, set[str]] = {}
    for route in iter_route_contexts(app.routes):
        declared.setdefault(str(route.path), set()).update(route.methods or ())

    for path, methods in declared.items():
        answered = methods | ({"HEAD"} if "GET" in methods else set())
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"):
            response = await client.request(method, path.replace("{sample_id}", "1"))
            if method in answered:
                assert 405 != response.status_code, (method, path)
            else:
                assert 405 == response.status_code, (method, path)
                if method != "HEAD":
                    problem(response, 405, "method_not_allowed")
                assert answered == set(response.headers["allow"].split(", ")), (method, path)
