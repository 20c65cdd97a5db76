import pytest

from app.main import create_app
from app.settings import Settings


def document(**settings):
    """Return the document of a service with these settings."""
    return create_app(Settings.load(database_url="postgresql://a@b/c", _env_file=None, **settings)).openapi()


def parameters(path, method):
    """Return the documented parameters of an operation by their names."""
    return {parameter["name"]: parameter for parameter in document()["paths"][path][method].get("parameters", ())}


@pytest.mark.parametrize(
    ("path", "method", "names"),
    [
        ("/items", "get", {"page", "per_page", "cursor", "is_active", "q", "count", "sort", "updated_after", "ids"}),
        ("/items", "post", {"Idempotency-Key"}),
        ("/items/{item_id}", "get", {"item_id", "If-None-Match"}),
        ("/items/{item_id}", "put", {"item_id", "If-Match"}),
        ("/items/{item_id}", "patch", {"item_id", "If-Match"}),
        ("/items/{item_id}", "delete", {"item_id", "permanent", "If-Match"}),
    ],
)
def test_parameters_are_documented_as_they_are_sent(path, method, names):
    """Each parameter is a string, an integer or a boolean, and headers have their usual spelling."""
    documented = parameters(path, method)

    assert names == set(documented)
    for parameter in documented.values():
        assert parameter["schema"]["type"] in ("string", "integer", "boolean")
        assert "anyOf" not in parameter["schema"]


@pytest.mark.parametrize(
    ("path", "method", "statuses"),
    [
        ("/items", "post", {201, 400, 413, 415, 422, 429, 503, 504}),
        ("/items", "get", {200, 422, 429, 503, 504}),
        ("/items/{item_id}", "get", {200, 304, 404, 422, 429, 503, 504}),
        ("/items/{item_id}", "put", {200, 400, 404, 412, 413, 415, 422, 429, 503, 504}),
        ("/items/{item_id}", "patch", {200, 400, 404, 412, 413, 415, 422, 429, 503, 504}),
        ("/items/{item_id}", "delete", {204, 404, 412, 422, 429, 503, 504}),
    ],
)
def test_exactly_the_possible_statuses_are_documented(path, method, statuses):
    """An operation documents the statuses that it can respond with, and no others."""
    responses = document()["paths"][path][method]["responses"]

    assert {str(status) for status in statuses} | {"default"} == set(responses)


def test_bounds_are_documented():
    """The document contains the bounds of parameters and fields."""
    listed, created = parameters("/items", "get"), parameters("/items", "post")

    assert (1, 100, 20) == tuple(listed["per_page"]["schema"][name] for name in ("minimum", "maximum", "default"))
    assert (1, 255) == tuple(created["Idempotency-Key"]["schema"][name] for name in ("minLength", "maxLength"))
    assert (1, 2**63 - 1) == tuple(
        parameters("/items/{item_id}", "get")["item_id"]["schema"][name] for name in ("minimum", "maximum")
    )
    name = document()["components"]["schemas"]["ItemCreate"]["properties"]["name"]
    assert (1, 255) == (name["minLength"], name["maxLength"])


def test_response_headers_are_documented():
    """`ETag`, `Location`, `Link`, `Retry-After` and the rate limit headers are documented where they are sent."""
    common = {"X-Request-ID", "Cache-Control", "RateLimit", "RateLimit-Policy"}
    paths = document()["paths"]

    for path, method, status, names in [
        ("/items", "post", "201", {"ETag", "Location", "Idempotency-Replayed"}),
        ("/items", "get", "200", {"Link"}),
        ("/items/{item_id}", "get", "200", {"ETag"}),
        ("/items/{item_id}", "get", "304", {"ETag"}),
        ("/items/{item_id}", "put", "200", {"ETag"}),
        ("/items/{item_id}", "patch", "200", {"ETag"}),
        ("/items/{item_id}", "get", "503", {"Retry-After"}),
        ("/items/{item_id}", "get", "429", {"Retry-After"}),
    ]:
        headers = paths[path][method]["responses"][status]["headers"]
        assert names | common == set(headers), (path, method, status)
