from datetime import UTC, datetime, timedelta

import pytest

from app.http.etags import etag, expected_versions, is_not_modified, newest_named
from tests.answers import problem
from tests.sample.dataclasses import Sample

CREATED = datetime(2026, 11, 22, 13, 0, 0, 123456, UTC)
SAMPLE = Sample(7, "Kettle", None, None, CREATED, CREATED)
TAG = etag(SAMPLE)
LATER = etag(Sample(7, "Kettle", None, None, CREATED, CREATED + timedelta(microseconds=1)))
OTHER = etag(Sample(8, "Kettle", None, None, CREATED, CREATED))

MALFORMED = ["", '"', "**", '"*"', ",", "w/" + TAG, "W/ " + TAG, TAG.strip('"'), f"x{TAG}", f"{TAG}x", f'"x{TAG[1:]}']


def test_each_version_has_its_own_strong_tag():
    """Another id and a microsecond later are other tags; equal versions have equal tags."""
    assert 3 == len({TAG, LATER, OTHER})
    assert TAG == etag(SAMPLE)
    assert TAG.startswith('"')
    assert TAG.endswith('"')


@pytest.mark.parametrize(
    "lines",
    [["{}"], ['"a", {}'], ['"a,b",{},"c"'], ['"a"', "{}"], ['W/"a",\t{} '], ["W/{}"], ['"a", W/{}']],
)
def test_a_tag_names_its_version(lines):
    """The tag is found alone, in a list, on a line of its own, and as a proxy weakens it."""
    assert [CREATED] == expected_versions([line.format(TAG) for line in lines], 7)
    assert is_not_modified([line.format(TAG) for line in lines], SAMPLE)


def test_the_newest_version_that_is_named_counts():
    """For each resource by itself. What this service did not make names none."""
    later = CREATED + timedelta(microseconds=1)
    assert {7: later, 8: CREATED} == newest_named([f'{LATER}, "a", {TAG}', f"W/{OTHER}"])
    assert {} == newest_named(["*"])
    assert [{}] * len(MALFORMED) == [newest_named([line]) for line in MALFORMED]


def test_every_version_is_allowed_by_a_star_and_without_a_condition():
    """`*` alone matches every version. Without the header a write is not conditional, and a read is not either."""
    assert expected_versions(None, 7) is None
    assert expected_versions([" * "], 7) is None
    assert is_not_modified(["*"], SAMPLE)
    assert not is_not_modified(None, SAMPLE)


@pytest.mark.parametrize("value", [*MALFORMED, OTHER, f'"{"9" * 300}"', f'"1-{"9" * 40}"', TAG.replace("-", "-0")])
def test_other_tags_name_no_version(value):
    """A malformed tag, the tag of another row, and one that this service did not make match nothing."""
    assert [] == expected_versions([value], 7)
    assert not is_not_modified([value], SAMPLE)


async def test_conditions_are_checked_over_http(client):
    """A write with an old tag is 412, with the current one it succeeds; a read of the current version is 304."""
    created = await client.post("/samples", json={"name": "Kettle"})
    path, old = created.headers["location"], created.headers["etag"]

    changed = await client.patch(path, json={"amount": 1}, headers={"If-Match": old})
    assert 200 == changed.status_code
    tag = changed.headers["etag"]
    for method, body in [("PUT", {"name": "Pan"}), ("PATCH", {"name": "Pan"}), ("DELETE", None)]:
        refused = await client.request(method, path, json=body, headers={"If-Match": old})
        problem(refused, 412, "precondition_failed")
    for method in ("GET", "HEAD"):
        current = await client.request(method, path, headers={"If-None-Match": tag})
        assert (304, b"", tag) == (current.status_code, current.content, current.headers["etag"])
        assert 200 == (await client.request(method, path, headers={"If-None-Match": old})).status_code
    assert 204 == (await client.delete(path, headers={"If-Match": f"W/{tag}"})).status_code
    problem(await client.delete(path, headers={"If-Match": "*"}), 404, "sample_not_found")
