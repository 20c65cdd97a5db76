"""The page /docs in a real browser."""

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

from tests.issuer.server import issuer
from tests.issuer.tokens import make_key
from tests.paths import ROOT
from tests.processes.authenticated import authenticated, token, wait_until_ready
from tests.processes.server import SAMPLES_APP, Server
from tests.programs import find

pytestmark = pytest.mark.needs("chromium")

IMAGES = ROOT / "docs" / "images"
"""Written by `WRITE_IMAGES=yes pytest tests/docs/test_page.py`."""

CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

BRIGHTNESS = {"light": (200, 255), "dark": (0, 80)}
"""The least and greatest mean brightness of the page, of 255."""


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    """The system's Chromium, without background requests of its own."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find("chromium"), args=CHROMIUM_OPTIONS)
        yield browser
        await browser.close()


@pytest.fixture
def server(database_url: str) -> Iterator[Server]:
    """A server with a new database. The images show the service's own resources only."""
    app = None if os.environ.get("WRITE_IMAGES") else SAMPLES_APP
    with Server(app=app, environment={"DATABASE_URL": database_url, "WEB_CONCURRENCY": "1"}) as running:
        yield running.serving()


class Visit:
    """A page in the browser, with its requests, console messages and errors."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.origin = origin
        self.requests: list[str] = []
        self.messages: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.messages.append(message.text))
        page.on("pageerror", lambda error: self.messages.append(str(error)))

    async def open(self) -> None:
        """Open the page and wait until it shows the operations."""
        await self.page.goto(f"http://{self.origin}/docs")
        await self.page.locator("#operations-system-health").wait_for()

    def assert_no_violation(self) -> None:
        """All requests went to this server, and the browser reported no error and no violation of the policy."""
        assert {self.origin} == {urlsplit(url).netloc for url in self.requests if not url.startswith("data:")}
        assert [] == self.messages


@pytest.fixture(params=sorted(BRIGHTNESS))
def scheme(request) -> str:
    """What the reader's system prefers."""
    return str(request.param)


@pytest.fixture
async def visit(scheme, browser, server) -> AsyncIterator[Visit]:
    """A page in a browser that prefers the light or the dark scheme."""
    context = await browser.new_context(color_scheme=scheme, viewport={"width": 1100, "height": 740})
    visit = Visit(await context.new_page(), f"127.0.0.1:{server.port}")
    await visit.open()
    yield visit
    await context.close()


async def test_the_form_creates_a_row(visit):
    """The form sends its example, and the row exists. The page uses no other host."""
    operation = visit.page.locator("#operations-samples-create_sample")
    await operation.locator(".opblock-summary-control").click()
    await operation.get_by_role("button", name="Execute").click()
    await operation.locator(".live-responses-table .response-col_status").filter(has_text="201").wait_for()

    async with httpx.AsyncClient() as client:
        listed = (await client.get(f"http://{visit.origin}/samples")).json()["samples"]
    assert ["Salt"] == [sample["name"] for sample in listed]
    assert f"http://{visit.origin}/samples" in visit.requests
    visit.assert_no_violation()


async def test_the_page_follows_the_color_scheme(visit, scheme):
    """The background is light or dark as the system prefers, also after a change while the page is open."""
    for now in (scheme, *(BRIGHTNESS.keys() - {scheme})):
        await visit.page.emulate_media(color_scheme=now)
        png = await visit.page.screenshot()
        darkest, brightest = BRIGHTNESS[now]
        assert darkest <= brightness(png) <= brightest, now
        if os.environ.get("WRITE_IMAGES") and now == scheme:
            write_image(png, IMAGES / f"docs-{scheme}.png")
    visit.assert_no_violation()


async def test_an_operation_shows_its_errors_and_headers(visit):
    """An operation shows the codes of its errors, its headers, and an example of its body."""
    operation = visit.page.locator("#operations-samples-change_sample")
    await operation.locator(".opblock-summary-control").click()
    await operation.get_by_text("precondition_failed").first.wait_for()

    shown = await operation.inner_text()
    for part in ("sample_not_found", "body_too_large", "rate_limited", "Retry-After", "RateLimit", "ETag", "If-Match"):
        assert part in shown, part
    assert '"amount": 4' in await operation.locator("textarea").input_value()
    visit.assert_no_violation()


async def test_the_policy_is_enforced(visit):
    """The Content-Security-Policy blocks inline scripts and requests to other hosts."""
    await visit.page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'ran = 1'}))"
    )
    result = await visit.page.evaluate("fetch('http://127.0.0.2/').then(() => 'allowed', () => 'blocked')")

    assert await visit.page.evaluate("window.ran") is None
    assert "blocked" == result
    assert len([text for text in visit.messages if "Content Security Policy" in text]) >= 2


async def test_a_token_can_be_pasted(browser, database_url):
    """With authentication on, the page asks for a token, and nothing from the issuer."""
    key = make_key()
    with issuer([key.jwk]) as trusted, authenticated(database_url, trusted, workers=1) as running:
        wait_until_ready(running.serving())
        context = await browser.new_context()
        visit = Visit(await context.new_page(), f"127.0.0.1:{running.port}")
        await visit.open()
        await visit.page.locator(".auth-wrapper .authorize").click()
        dialog = visit.page.locator(".dialog-ux")
        await dialog.get_by_text("accessToken").wait_for()
        assert "openIdConnect" not in await dialog.inner_text()
        await dialog.locator("input").fill(token(trusted, key))
        await dialog.locator(".authorize").click()
        await dialog.get_by_role("button", name="Close").click()
        operation = visit.page.locator("#operations-samples-list_samples")
        await operation.locator(".opblock-summary-control").click()
        await operation.get_by_role("button", name="Execute").click()
        await operation.locator(".live-responses-table .response-col_status").filter(has_text="200").wait_for()
        await context.close()
    visit.assert_no_violation()


def brightness(png: bytes) -> float:
    """The mean of all pixels, from 0 to 255."""
    return float(imread(BytesIO(png))[..., :3].mean()) * 255


def write_image(png: bytes, file: Path) -> None:
    """Write a screenshot as a PNG with 64 colors."""
    with Image.open(BytesIO(png)) as image:
        image.convert("RGB").quantize(64).save(file, optimize=True)
