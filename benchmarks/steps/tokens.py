"""Measures what an access token adds to a request."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.types import ASGIApp

from app import logs
from app.auth.authenticator import Authenticator
from app.auth.principal import Principal
from app.health.last_report import LastReport
from app.metrics.instruments import Metrics
from app.middleware.authentication import OPEN_PATHS, Authentication
from app.rate_limits import RateLimits
from app.settings import Settings
from benchmarks.harness.timing import Times, in_turns_async
from benchmarks.steps.layers import answer
from benchmarks.steps.routes import receive, scope, send
from tests.issuer.server import issuer
from tests.issuer.tokens import AUDIENCE, Kind, make_key

CALLS = 200

_KINDS: tuple[Kind, ...] = ("RS256", "ES256", "EdDSA")


class _Forgetful(Authenticator):
    """Takes every token for a new one."""

    def recall(self, token: bytes) -> Principal | None:  # noqa: ARG002
        return None


async def measure(url: str, rounds: int) -> Times:
    """Measure the middleware around an application that answers at once, and subtract the time of the application."""
    logs.configure("warning", "json")
    settings = Settings.load(database_url=url, _env_file=None)
    metrics = Metrics()
    limits = RateLimits(settings, metrics)
    keys = {kind: make_key(kind, kind) for kind in _KINDS}
    with issuer([key.jwk for key in keys.values()]) as running:
        parts: dict[str, Any] = {
            "issuer": running.url,
            "audience": AUDIENCE,
            "jwks_url": None,
            "observer": metrics,
            "shared_folder": None,
            "keys_report": LastReport(None, "keys"),
            "fetch_report": LastReport(None, "fetch"),
        }
        forgetful, remembering = _Forgetful(**parts), Authenticator(**parts)
        async with limits.opened(None), forgetful.opened(), remembering.opened():
            tokens = {kind: key.token(running.url) for kind, key in keys.items()}
            requests = {
                f"a new token, {kind}": _requesting(_protected(forgetful, limits), token)
                for kind, token in tokens.items()
            }
            remembered = _requesting(_protected(remembering, limits), tokens["RS256"])
            times = await in_turns_async(
                requests | {"a remembered token": remembered, "nothing": _requesting(answer, tokens["RS256"])},
                calls=CALLS,
                rounds=rounds,
            )
    nothing = times.pop("nothing")
    return {name: [whole - part for whole, part in zip(values, nothing, strict=True)] for name, values in times.items()}


def _protected(authenticator: Authenticator, limits: RateLimits) -> ASGIApp:
    return Authentication(answer, authenticator, limits, OPEN_PATHS, answers_preflights=False)


def _requesting(application: ASGIApp, token: str) -> Callable[[], Awaitable[None]]:
    async def send_request() -> None:
        request = scope("/items/5")
        request["headers"].append((b"authorization", f"Bearer {token}".encode()))
        await application(request, receive, send)

    return send_request
