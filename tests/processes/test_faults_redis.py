import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.processes.history import History
from tests.processes.load import Request, load
from tests.processes.scrape import scrape, total
from tests.processes.server import eventually, service
from tests.processes.watch import print_figures
from tests.redis_server import RedisServer, redis_server

LIMIT = 200


@contextmanager
def broken(redis: RedisServer, how: str) -> Iterator[None]:
    """Redis stopped, frozen, or so slow that it answers only sometimes."""
    done = threading.Event()

    def freeze_and_thaw() -> None:
        while not done.is_set():
            redis.freeze()
            done.wait(0.3)
            redis.thaw()
            done.wait(0.05)

    thread = threading.Thread(target=freeze_and_thaw, daemon=True)
    if how == "refused":
        redis.kill()
    elif how == "frozen":
        redis.freeze()
    else:
        thread.start()
    try:
        yield
    finally:
        if how == "refused":
            redis.start()
        elif how == "frozen":
            redis.thaw()
        else:
            done.set()
            thread.join()


@pytest.mark.needs("redis-server")
@pytest.mark.parametrize("how", ["refused", "frozen", "slow"])
def test_limits_hold_without_redis(database_url, tmp_path, how):
    """The host's own counters apply the limit, no request fails or takes a second, and later Redis is used again.

    All writes succeed, because their limit is not reached.
    """
    history = History(database_url)
    settings = {"RATE_LIMIT_READ": f"{LIMIT}/hour", "RATE_LIMIT_WRITE": "100000/hour"}
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(tmp_path))
        server = stack.enter_context(service(database_url, workers=2, **settings, RATE_LIMIT_STORAGE_URI=redis.uri))
        server.serving(workers=2)
        with (
            load(server.port, rate=100, kept=10, fresh=5, request=lambda _: Request(target="/samples")) as report,
            load(server.port, rate=40, kept=5, fresh=5, request=history.creation) as writes,
        ):
            time.sleep(0.5)
            with broken(redis, how):
                time.sleep(4)
                degraded = total(scrape(server.port), "rate_limit_storage_degraded")
            eventually(
                lambda: total(scrape(server.port), "rate_limit_storage_degraded") == 0,
                seconds=5,
                what="Redis in use again",
            )

    acknowledged = history.check(writes)["acknowledged"]
    print_figures(
        admitted=report.statuses[200],
        half_within=report.seconds(0.5),
        all_but_1_percent=report.seconds(0.99),
        acknowledged=acknowledged,
        slowest_write=writes.seconds(1.0),
    )
    assert [] == report.failures()
    assert {200: LIMIT} == {status: count for status, count in report.statuses.items() if status != 429}
    assert report.statuses[429] > 50
    assert report.seconds(1.0) < 1
    assert {201: len(writes.results)} == writes.statuses
    assert writes.seconds(1.0) < 1
    assert acknowledged == len(writes.results) > 100
    assert how == "slow" or degraded == 1
