"""The documentation's page, in a real browser."""

import os
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from matplotlib.image import imread
from PIL import Image
from playwright.async_api import Browser, Page, async_playwright

from tests.paths import ROOT
from tests.processes.server import Server
from tests.programs import find

pytestmark = pytest.mark.needs("chromium")

IMAGES = ROOT / "docs" / "images"
"""Written by `WRITE_IMAGES=yes pytest tests/docs/test_page.py`."""

QUIETLY = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

BRIGHTNESS = {"light": (200, 255), "dark": (0, 80)}
"""How bright the page may be in the mean, of 255."""


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    """The system's Chromium, which asks nobody but whom a page asks for."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find("chromium"), args=QUIETLY)
        yield browser
        await browser.close()


@pytest.fixture
def server(database_url: str) -> Iterator[Server]:
    """The service with a database of its own."""
    with Server(environment={"DATABASE_URL": database_url, "WEB_CONCURRENCY": "1"}) as running:
        yield running.serving()


class Visit:
    """A page, and all that the browser had to say about it."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.origin = origin
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    async def open(self) -> None:
        """Open the documentation and wait until it shows the operations."""
        await self.page.goto(f"http://{self.origin}/docs")
        await self.page.locator("#operations-items-create_item").wait_for()

    def assert_contained(self) -> None:
        """Nothing was asked of another host, and nothing was against the policy or failed."""
        assert {self.origin} == {urlsplit(url).netloc for url in self.asked if not url.startswith("data:")}
        assert [] == self.complaints


@pytest.fixture(params=sorted(BRIGHTNESS))
def scheme(request) -> str:
    """What the reader's system prefers."""
    return str(request.param)


@pytest.fixture
async def visit(scheme, browser, server) -> AsyncIterator[Visit]:
    """A visit by somebody who prefers light or dark."""
    context = await browser.new_context(color_scheme=scheme, viewport={"width": 1100, "height": 740})
    visit = Visit(await context.new_page(), f"127.0.0.1:{server.port}")
    await visit.open()
    yield visit
    await context.close()


async def test_trying_it_out_creates_an_item(visit):
    """The example is sent as it stands, and the item is there; the page needs no other host and breaks no rule."""
    operation = visit.page.locator("#operations-items-create_item")
    await operation.locator(".opblock-summary-control").click()
    await operation.get_by_role("button", name="Execute").click()
    await operation.locator(".live-responses-table .response-col_status").filter(has_text="201").wait_for()

    async with httpx.AsyncClient() as client:
        items = (await client.get(f"http://{visit.origin}/items")).json()["items"]
    assert ["Kettle"] == [item["name"] for item in items]
    assert f"http://{visit.origin}/items" in visit.asked
    visit.assert_contained()


async def test_the_page_is_as_light_as_its_reader_wants(visit, scheme):
    """The background follows the system's colours, also when they change while the page is open."""
    for now in (scheme, *(BRIGHTNESS.keys() - {scheme})):
        await visit.page.emulate_media(color_scheme=now)
        png = await visit.page.screenshot()
        darkest, brightest = BRIGHTNESS[now]
        assert darkest <= brightness(png) <= brightest, now
        if os.environ.get("WRITE_IMAGES") and now == scheme:
            write_image(png, IMAGES / f"docs-{scheme}.png")
    visit.assert_contained()


async def test_the_examples_and_failures_are_shown(visit):
    """An operation shows its failures by their codes, with an answer as it looks, and the headers."""
    operation = visit.page.locator("#operations-items-change_item")
    await operation.locator(".opblock-summary-control").click()
    await operation.get_by_text("precondition_failed").first.wait_for()

    shown = await operation.inner_text()
    for part in ("item_not_found", "body_too_large", "rate_limited", "Retry-After", "RateLimit", "ETag", "If-Match"):
        assert part in shown, part
    assert "29.95" in await operation.locator("textarea").input_value()
    visit.assert_contained()


async def test_the_policy_is_enforced(visit):
    """What is not from this server does not run and is not reached: the page's own rule stops it."""
    await visit.page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'ran = 1'}))"
    )
    reached = await visit.page.evaluate("fetch('http://127.0.0.2/').then(() => 'reached', () => 'refused')")

    assert await visit.page.evaluate("window.ran") is None
    assert "refused" == reached
    assert len([text for text in visit.complaints if "Content Security Policy" in text]) >= 2


def brightness(png: bytes) -> float:
    """The mean of all pixels, from 0 to 255."""
    return float(imread(BytesIO(png))[..., :3].mean()) * 255


def write_image(png: bytes, file: Path) -> None:
    """Keep a screenshot, in as many colours as it needs and no more."""
    with Image.open(BytesIO(png)) as image:
        image.convert("RGB").quantize(64).save(file, optimize=True)
