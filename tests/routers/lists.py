"""Many items, and what a list of them answers."""

import re

LINK = re.compile(r'<([^>]*)>; rel="(\w+)"')


async def fill(sql, count, name="'Item ' || n", active="true"):
    """Store so many items at once; the two expressions may speak of their number, n."""
    await sql.execute(
        f"INSERT INTO items (name, is_active) SELECT {name}, {active} FROM generate_series(1, {count}) AS n"
    )
    await sql.execute("ANALYZE items")


def ids(response):
    """The ids of the items listed."""
    assert 200 == response.status_code, response.text
    return [item["id"] for item in response.json()["items"]]


def links(response):
    """The targets of the answer's links by their relations."""
    return {relation: target for target, relation in LINK.findall(response.headers["link"])}
