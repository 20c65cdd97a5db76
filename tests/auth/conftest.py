from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from app.settings import Settings
from tests.application import opened
from tests.issuer.server import Issuer
from tests.issuer.server import issuer as running_issuer
from tests.issuer.tokens import AUDIENCE, SigningKey, make_key


@pytest.fixture(scope="session")
def key() -> SigningKey:
    """A private key of the issuer."""
    return make_key()


@pytest.fixture
def issuer(key: SigningKey) -> Iterator[Issuer]:
    """A running issuer that publishes this key."""
    with running_issuer([key.jwk]) as running:
        yield running


@pytest.fixture
def protected(settings: Settings, issuer: Issuer) -> Settings:
    """Settings with authentication."""
    return settings.model_copy(update={"auth_issuer": issuer.url, "auth_audience": AUDIENCE})


@pytest.fixture
async def api(protected: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application with authentication. It sends no token by itself."""
    async with opened(protected) as running:
        yield running
