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
        ("/items", "get", {"page", "per_page", "cursor", "is_active", "q", "count"}),
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
        assert names | {"X-Request-ID", "RateLimit", "RateLimit-Policy"} == set(headers), (path, method, status)


def test_disabled_rate_limits_are_not_documented():
    """Without rate limits neither 429 nor the rate limit headers are documented."""
    operation = document(rate_limit_enabled=False)["paths"]["/items"]["get"]

    assert "429" not in operation["responses"]
    assert not any("RateLimit" in response["headers"] for response in operation["responses"].values())


def test_the_document_is_made_once():
    """A second call returns the same object."""
    app = create_app(Settings.load(database_url="postgresql://a@b/c", _env_file=None))

    assert app.openapi() is app.openapi()
