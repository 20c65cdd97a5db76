"""The application with the samples, run in this process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from app.settings import Settings
from tests.sample.app import create_app


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """Run the application with its lifespan, and yield a client of it."""
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as running,
    ):
        yield running
