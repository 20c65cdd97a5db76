import pytest

from app.http.responses import json_response


@pytest.mark.parametrize("name", ["Content-Type", "content-type"])
def test_a_content_type_that_is_given_replaces_the_usual_one(name):
    """A second header would have clients choose."""
    response = json_response({"a": 1}, headers={name: "application/vnd.tea+json", "ETag": '"1"'})

    assert {
        b"content-type": b"application/vnd.tea+json", b"etag": b'"1"', b"content-length": b"7",
    } == dict(response.raw_headers)  # fmt: skip
    assert 3 == len(response.raw_headers)


def test_the_length_is_that_of_the_body():
    """Another one would cut the response, or leave the client waiting."""
    assert [b"2"] == [
        value for name, value in json_response({}, headers={"Content-Length": "9"}).raw_headers if b"length" in name
    ]
