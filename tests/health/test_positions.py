"""The questions that a worker asks its servers."""

from app.health.replica_check import _flushed, _replayed


async def test_the_role_of_the_service_may_ask_for_positions(database):
    """It needs no privilege. A server that is no standby says so, and belongs to the same cluster."""
    primary = (await database.check(_flushed))[0]
    replica = (await database.check(_replayed))[0]

    assert primary["flushed"] > 0
    assert "00000001" == primary["timeline"]
    assert not replica["is_standby"]
    assert primary["cluster"] == replica["cluster"]
