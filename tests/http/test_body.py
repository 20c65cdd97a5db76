import pytest

from tests.answers import problem

LIMIT = 65_536
WRITES = [("POST", "/samples"), ("PUT", "/samples/1"), ("PATCH", "/samples/1")]
JSON = {"Content-Type": "application/json"}


def body_of(size):
    """Return a document of the given size that is a valid new sample."""
    empty = '{"name": "Kettle", "padding": ""}'
    return empty.replace('""', f'"{"x" * (size - len(empty))}"').encode()


async def chunks(*parts):
    """Send the parts as a body without a declared length."""
    for part in parts:
        yield part


@pytest.fixture(autouse=True)
async def _item(client):
    await client.post("/samples", json={"name": "Kettle"})


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/json ;charset=utf8",
        "application/json;",
    ],
)
async def test_json_in_utf_8_is_accepted(client, content_type):
    """JSON in UTF-8 is accepted, in every spelling of its content type."""
    response = await client.post("/samples", content=b'{"name": "\xc3\x89cru"}', headers={"Content-Type": content_type})

    assert "Écru" == response.json()["name"]


@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_other_content_types_are_refused(client, method, path):
    """A body whose content type is not JSON in UTF-8, or is missing, is 415. PATCH also accepts a merge patch."""
    types = [
        "", "text/plain", "text/json", "application/jsonp", "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        *([] if method == "PATCH" else ["application/merge-patch+json"]),
        "application/problem+json", "application/*", "*/*",
        "application/json, text/plain",
        "application/json; charset=utf-16", "application/json; charset=latin-1",
        "application/json; charset=utf-8; charset=ascii",
        "application", "\xff",
    ]  # fmt: skip
    for content_type in types:
        headers = [(b"Content-Type", content_type.encode("latin-1"))]
        response = await client.request(method, path, content=b'{"name": "Pan"}', headers=headers)
        problem(response, 415, "unsupported_media_type")
    problem(await client.request(method, path, content=b'{"name": "Pan"}'), 415, "unsupported_media_type")
    problem(await client.request(method, path), 415, "unsupported_media_type")


@pytest.mark.parametrize("content_type", ["application/merge-patch+json", "Application/Merge-Patch+JSON;charset=utf-8"])
async def test_a_merge_patch_is_a_change(client, content_type):
    """PATCH reads a merge patch as JSON: null is a value, what is absent stays."""
    await client.patch("/samples/1", json={"description": "For tea", "amount": 4})
    headers = {"Content-Type": content_type}

    changed = await client.patch("/samples/1", content=b'{"description": null}', headers=headers)

    assert {"description": None, "amount": 4}.items() <= changed.json().items()
    problem(await client.patch("/samples/1", content=b'{"amount": NaN}', headers=headers), 400, "malformed_body")
    refused = await client.patch("/samples/1", content=b"{}", headers={"Content-Type": "text/plain"})
    assert (
        "application/json or application/merge-patch+json" in problem(refused, 415, "unsupported_media_type")["detail"]
    )


async def test_two_content_types_are_refused(client):
    """Two content types are 415, in either order."""
    for types in (["application/json", "text/plain"], ["text/plain", "application/json"]):
        headers = [("Content-Type", content_type) for content_type in types]
        problem(
            await client.post("/samples", content=b'{"name": "Pan"}', headers=headers), 415, "unsupported_media_type"
        )


@pytest.mark.parametrize("encoding", ["gzip", "identity", "br", "utf-8", ""])
@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_an_encoded_body_is_refused(client, method, path, encoding):
    """Any `Content-Encoding` is 415."""
    headers = JSON | {"Content-Encoding": encoding}

    problem(
        await client.request(method, path, content=b'{"name": "Pan"}', headers=headers), 415, "unsupported_media_type"
    )


@pytest.mark.parametrize("is_declared", [True, False])
@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_a_body_is_limited_in_size(client, method, path, is_declared):
    """65,536 bytes are accepted and one more is 413, with a declared length and without."""
    for size, status in [(LIMIT, 200), (LIMIT + 1, 413)]:
        body = body_of(size)
        assert size == len(body)
        response = await client.request(
            method, path, content=body if is_declared else chunks(body[:50_000], body[50_000:], b""), headers=JSON
        )
        if status == 413:
            assert "65536" in problem(response, 413, "body_too_large")["detail"]
        else:
            assert response.is_success, response.text


async def test_a_body_with_a_declared_length_above_the_limit_is_not_read(client):
    """A declared length above the limit is 413 before the body is read."""

    async def unread():
        pytest.fail("The body was read.")
        yield b""

    for length in (str(LIMIT + 1), "9" * 18):
        response = await client.post("/samples", content=unread(), headers=JSON | {"Content-Length": length})
        problem(response, 413, "body_too_large")


async def test_no_more_than_the_limit_is_read(client):
    """Reading of an endless body stops with the first chunk beyond the limit."""
    given = 0

    async def endless():
        nonlocal given
        while True:
            given += 10_000
            yield b" " * 10_000

    problem(await client.post("/samples", content=endless(), headers=JSON), 413, "body_too_large")

    assert given == 70_000


@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_a_body_that_is_not_strict_json_is_malformed(client, method, path):
    """A body that is not exactly one JSON document in UTF-8 is 400."""
    bodies = [
        b"", b" ", b"{", b'{"name": "Pan"', b"{'name': 'Pan'}", b'{"name": "Pan",}', b'{"name": "Pan"} {}',
        b"name=Pan", b"undefined",
        b'{"name": "Pan", "amount": NaN}', b'{"amount": Infinity}', b'{"amount": -Infinity}', b'{"amount": 1e999}',
        b'{"amount": 01}', b'{"amount": +1}',
        b'{"amount": .5}', b'{"amount": 1.}', b'{"amount": 0x1}', b'{"name": "\\ud800"}', b'{"name": "\\udc00\\ud800"}',
        b'{"\\ud800": 1}', b'{"name": "a\nb"}', b'{"name": "\\x41"}',
        b'\xef\xbb\xbf{"name": "Pan"}', '{"name": "Pan"}'.encode("utf-16"), '{"name": "Pan"}'.encode("utf-16-le"),
        '{"name": "Pan"}'.encode("utf-32"),
        b'{"name": "\xff"}', b'{"name": "\xc0\xaf"}', b'{"name": "\xed\xa0\x80"}', b"[" * 30_000, b'{"a":' * 10_000,
        b"[" * 3_000 + b"]" * 3_000,
        b'{"name": "Pan"} // comment', b'{"name": "Pan"}\0', b"\0", b"True",
    ]  # fmt: skip
    for body in bodies:
        response = await client.request(method, path, content=body, headers=JSON)
        assert 400 == response.status_code, (body[:60], response.text)
        problem(response, 400, "malformed_body")


async def test_numbers_with_thousands_of_digits_are_refused(client):
    """A number with thousands of digits is refused as malformed or out of bounds."""
    for number in (b"9" * 5_000, b"-" + b"9" * 5_000, b"1." + b"0" * 5_000 + b"1e300", b"18446744073709551616"):
        response = await client.post("/samples", content=b'{"name": "Pan", "amount": %b}' % number, headers=JSON)
        assert response.status_code in (400, 422), response.text
        problem(response, response.status_code, response.json()["code"])


async def test_the_last_of_two_members_with_one_name_counts(client):
    """If a member's name is repeated, its last value counts."""
    response = await client.post("/samples", content=b'{"name": "Kettle", "name": "Pan"}', headers=JSON)

    assert "Pan" == response.json()["name"]
