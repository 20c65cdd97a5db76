import pytest

from tests import seams

RECORDED = dict(line.partition("(")[::2] for line in seams.RECORD.read_text(encoding="utf-8").splitlines())


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    """The signature of each member, by its name."""
    return dict(line.partition("(")[::2] for line in seams.discover())


def test_what_the_service_overrides_has_the_signature_it_was_written_for(found):
    """A release that changes a member which the service overrides or relies on is named before anything runs."""
    changed = [
        f"{name}({RECORDED[name]} is now {name}({signature}"
        for name, signature in found.items()
        if RECORDED.get(name, signature) != signature
    ]

    assert not changed, "Adapt the code, then run python -m tests.seams"


def test_what_the_service_overrides_is_still_there(found):
    """A member that a release has removed is named: nothing would call the method that overrides it."""
    assert not RECORDED.keys() - found.keys(), "Gone from its package, or not used: then run python -m tests.seams"


def test_what_the_service_overrides_is_recorded(found):
    """A new override is recorded with the signature it was written for."""
    assert not found.keys() - RECORDED.keys(), "Run python -m tests.seams"


def test_overrides_and_private_members_are_found(found):
    """The search finds an overridden method, a private one, a replaced function, a hook and a set attribute."""
    for name in (
        "gunicorn.arbiter.Arbiter.reload",
        "uvicorn.protocols.http.httptools_impl.HttpToolsProtocol._start_asgi_task",
        "prometheus_client.values.ValueClass",
        "gunicorn.config on_starting",
        "uvicorn.protocols.http.httptools_impl.RequestResponseCycle.disconnected",
    ):
        assert name in found
