"""What tests expect of every answer, whatever was asked."""

import re
from typing import Any

import httpx

MEMBERS = {"type", "title", "status", "detail", "code", "request_id"}
LINK = re.compile(r'<([^>]*)>; rel="(\w+)"')
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The body of an error answer, once it is what all of them must be."""
    assert (status, "application/problem+json") == (response.status_code, response.headers["content-type"]), (
        response.text
    )
    body: dict[str, Any] = response.json()
    assert code == body["code"], body
    assert set(body) - {"errors", "checks", "context"} == MEMBERS
    assert status == body["status"]
    assert body["request_id"] == response.headers["x-request-id"]
    assert REQUEST_ID.fullmatch(body["request_id"])
    assert body["title"]
    assert body["detail"]
    assert (status == 422) == ("errors" in body)
    assert all(set(error) == {"field", "message"} and all(error.values()) for error in body.get("errors", ()))
    assert [] != body.get("errors")
    return body


def links(response: httpx.Response) -> dict[str, str]:
    """The targets of the `Link` header by their relations."""
    return {relation: target for target, relation in LINK.findall(response.headers["link"])}


def refused_fields(response: httpx.Response) -> set[str]:
    """The parts of the request that a 422 names."""
    return {error["field"] for error in problem(response, 422, "invalid_request")["errors"]}
