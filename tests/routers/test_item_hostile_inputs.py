"""No request causes an internal error, and no error response repeats the input."""

import itertools
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.answers import problem

MARKER = "m4rk3r"
JSON = {"Content-Type": "application/json"}
WRITES = [("POST", "/items"), ("PUT", "/items/1"), ("PATCH", "/items/1")]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

SQL = [
    "' OR 1=1 --",
    "'; DROP TABLE items; --",
    '"',
    "\\",
    "\\'",
    "$1",
    "%s",
    ":name",
    "%(name)s",
    "{0}",
    "/*",
    "E'\\x00'",
    "$$",
    "\\000",
]
TEXTS = [
    "", " ", "\0", f"{MARKER}\0", "\x1b[31m", "\r\nX-Evil: 1", "\ufeff", "\uffff", "\u202e", "e\u0301", "İı", "ﬀ",
    "🫖" * 300, MARKER * 200, MARKER * 9_000,
    "<script>", "{{7*7}}", "${jndi:ldap://x}", "../../etc/passwd", "%", "_", "\\", "100\\", "%00", "NaN", "Infinity",
    "null", "1_000", "+1", " 1", "\u0661", "0x10",
    "1e400", "-0", "1.0", "9" * 400, str(2**63), str(-(2**63)), str(2**64), *SQL,
]  # fmt: skip
VALUES: list[Any] = [
    *TEXTS, None, True, False, 0, -1, -0.0, 1, 0.001, 1e-320, 1e308, 2**53 + 1, 2**63, 2**64 - 1, [], {}, [MARKER],
    {MARKER: MARKER}, [[[[]]]], [None] * 2_000,
    {"name": MARKER}, {"__proto__": {}}, {"$ref": "#"},
]  # fmt: skip


@pytest.fixture(autouse=True)
async def _item(client):
    await client.post("/items", json={"name": "Kettle"})


def check(response: httpx.Response) -> None:
    """Assert that the response is a success, or a problem without any of the input."""
    sent = (response.request.method, response.request.url, response.request.headers)
    assert response.status_code < 500, (sent, response.text)
    assert "x-evil" not in response.headers
    if response.status_code < 400:
        return
    if response.request.method != "HEAD":
        problem(response, response.status_code, response.json()["code"])
    headers = {name: value for name, value in response.headers.items() if name != "x-request-id"}
    assert MARKER not in f"{response.text}{headers}", sent
    assert "Traceback" not in response.text
    assert "postgresql:" not in response.text


@pytest.mark.parametrize("field", ["name", "description", "price", "is_active", MARKER, ""])
@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_every_value_of_a_field_is_stored_or_refused(client, method, path, field):
    """Every JSON value of every field is stored unchanged, or refused."""
    for value in VALUES:
        body = orjson.dumps({"name": "Pan", "description": MARKER, field: value})
        response = await client.request(method, path, content=body, headers=JSON)

        check(response)
        if response.is_success and isinstance(value, str) and field in ("name", "description"):
            assert value.strip() == response.json()[field].strip()


@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_a_body_that_is_no_item_is_refused(client, method, path):
    """Malformed JSON, JSON that is no item, and every body of another media type are refused."""
    item = orjson.dumps({"name": "Pan", "description": MARKER})
    bodies = [
        *(orjson.dumps(value) for value in VALUES if value != {"name": MARKER}), b"", b"\0",
        item[:-1], item + item, b"\xef\xbb\xbf" + item,
        item.replace(b"Pan", b"\xff"), item.replace(b"Pan", b"\\ud800"),
        *(item.decode().encode(encoding) for encoding in ("utf-16", "utf-16-be", "utf-32")), b"[" * 60_000,
        b'{"a":' * 12_000, b'{"name":' + b"[" * 900 + b"]" * 900 + b"}",
        item.replace(b'"Pan"', b"9" * 5_000), item.replace(b'"Pan"', b"NaN"), item.replace(b'"Pan"', b"-Infinity"),
        b"name=Pan&description=" + MARKER.encode(),
        b"--x\r\nContent-Disposition: form-data; name=name\r\n\r\nPan\r\n--x--", b"<item/>", MARKER.encode() * 20_000,
        b'{"name": "Pan", "name": null}',
    ]  # fmt: skip
    for body, headers in itertools.product(bodies, [JSON, {}, {"Content-Type": "application/x-www-form-urlencoded"}]):
        response = await client.request(method, path, content=body, headers=headers)

        check(response)
        assert response.is_client_error, (body[:100], headers)


@pytest.mark.parametrize("name", ["page", "per_page", "cursor", "is_active", "q", "count", "permanent", MARKER])
async def test_every_value_of_a_parameter_is_used_ignored_or_refused(client, name):
    """Every value of a query parameter is used, ignored or refused."""
    raw = [
        "%FF",
        "%C0%AF",
        "%ED%A0%80",
        "%",
        "%zz",
        "%u0041",
        "1&" + name + "=2",
        "[]",
        "a=b",
        ";",
        "+",
        "%2500",
        "&" * 500,
    ]
    for value in [*map(quote, TEXTS), *raw]:
        check(await client.get(f"/items?{name}={value[:20_000]}"))
        check(await client.delete(f"/items/99?{name}={value[:20_000]}"))


async def test_a_path_that_is_not_documented_is_refused(client):
    """It is 404, a malformed path, an invalid id, or a method that is not allowed."""
    segments = [
        *(quote(text, safe="") for text in TEXTS if text),
        "%FF",
        "%2E%2E",
        "..%2F..",
        "%2F",
        "1%2F2",
        ";",
        "1;a=b",
        "%5C",
        "*",
        "{item_id}",
        "1.json",
    ]
    for segment, method in itertools.product(segments, METHODS):
        path = f"/items/{segment[:20_000]}"
        response = await client.request(method, path, content=b'{"name": "Pan"}', headers=JSON)
        check(response)
        assert response.is_client_error, (method, path)
    for segment, folder in itertools.product(segments, ["/", "/docs/", "/items/1/"]):
        response = await client.get(f"{folder}{segment[:20_000]}")
        check(response)
        assert response.is_client_error, (folder, segment)


@pytest.mark.parametrize(
    "name",
    [
        "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Expect", "Host", "Idempotency-Key",
        "If-Match", "If-None-Match",
        "Origin", "Range", "Traceparent", "Transfer-Encoding", "X-Forwarded-For", "X-Request-ID", "X-" + MARKER,
    ],
)  # fmt: skip
async def test_every_value_of_a_header_is_used_ignored_or_refused(client, name):
    """Every value of a header is used, ignored or refused."""
    values = [
        b"", b" ", b"*", b'"', b'W/"', b'"a', b",,,", b"\xff\xfe", b"\0", b"a\r\nX-Evil: 1", b"-1", b"9" * 5_000,
        b"\xb2", b"chunked", b"bytes=0-99999999999", b"../..", b"00-0-0-0",
        MARKER.encode(), b'"' + MARKER.encode() * 500 + b'"', "é".encode(), *(text.encode() for text in SQL),
        b'"1-' + b"9" * 300 + b'"', b'"' * 3_000, b'W/"a",' * 2_000,
    ]  # fmt: skip
    for value, (method, path) in itertools.product(
        values, [("POST", "/items"), ("PATCH", "/items/1"), ("GET", "/items/1"), ("DELETE", "/items/1")]
    ):
        content = b'{"name": "Pan"}' if method in ("POST", "PATCH") else None
        headers = httpx.Headers([] if name == "Content-Type" else JSON)
        for lines in ([value], [value, value]):
            request = client.build_request(
                method, path, content=content, headers=[*headers.raw, *((name.encode(), line) for line in lines)]
            )
            check(await client.send(request))


documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False,
    allow_infinity=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=5)
    | st.dictionaries(st.sampled_from(["name", "description", "price",
    "is_active"]) | st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip
fuzzed = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzzed
@given(document=documents, write=st.sampled_from(WRITES))
async def test_every_json_document_is_answered_with_an_item_or_a_problem(client, document, write):
    """The response to every JSON document is an item or a problem."""
    check(await client.request(*write, content=orjson.dumps(document), headers=JSON))


@fuzzed
@given(
    body=st.binary(max_size=200),
    key=st.binary(max_size=20),
    tags=st.binary(max_size=30),
    query=st.text(st.characters(codec="ascii", exclude_categories=["Cc"])),
)
async def test_any_bytes_are_answered_with_an_item_or_a_problem(client, body, key, tags, query):
    """The response to any bytes is an item or a problem."""
    for method, path in [*WRITES, ("GET", "/items/1"), ("GET", "/items")]:
        headers = [
            (b"content-type", b"application/json"),
            (b"idempotency-key", key),
            (b"if-match", tags),
            (b"if-none-match", tags),
        ]
        check(await client.request(method, f"{path}?{quote(query, safe='=&%+')}", content=body, headers=headers))
