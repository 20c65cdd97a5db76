"""Measures which alert reports each fault of docs/operations/failures.md, and after how many seconds.

It takes about 20 minutes and needs a machine that does nothing else, so no other run of the tests includes it:
`.venv/bin/pytest -s tests/alerts/measure_alerts.py`.
"""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.alerts.faults import FAULTS, Fault
from tests.alerts.prometheus import PREFIX, Alerts, prometheus
from tests.alerts.scene import SAMPLES, Scene, Timing
from tests.cluster import as_role, create_database, create_samples, execute, migrate_as_owner, throw_away_cluster

HEALTHY_SECONDS = 60
"""How long Prometheus watches before the faults begin."""

FAULTY_SECONDS = 720
"""How long the faults last: longer than a `for` of ten minutes. Alerts that wait for 15 minutes are not seen."""

ONLY = os.environ.get("FAULTS", "").split()
"""The faults to make; by default all of them."""

CHOSEN = [fault for fault in FAULTS if not ONLY or fault.name in ONLY]


@pytest.mark.needs("prometheus", "promtool", "redis-server", "unshare", "root")
def test_the_right_alert_reports_each_fault_first(tmp_path: Path) -> None:
    """Real servers have one fault each at the same time, and a real Prometheus evaluates the deployed rules."""
    with throw_away_cluster({"max_connections": "1000"}) as cluster:
        rules = cluster.data / "pg_hba.conf"
        rules.write_text("local all guarded scram-sha-256\n" + rules.read_text())
        template = create_database(cluster, "migrated")
        migrate_as_owner(template)
        create_samples(as_role(template, "items_owner"))
        execute(template, f"INSERT INTO samples (name) SELECT 'seeded' FROM generate_series(1, {SAMPLES})")
        execute(cluster.url, "SELECT pg_reload_conf()")
        timing = Timing(all_serve=threading.Barrier(len(CHOSEN) + 1))
        scenes = []
        for fault in CHOSEN:
            folder = tmp_path / fault.name
            folder.mkdir()
            url = create_database(cluster, fault.name, "migrated")
            scenes.append(Scene(name=fault.name, owner_url=url, folder=folder, rate=fault.rate, timing=timing))
        alerts = measured(scenes, timing, tmp_path)

    rows = [row(scene, alerts) for scene in scenes]
    print("\n| fault | alerts, with the seconds until they fire |\n|---|---|")  # noqa: T201
    for fault, found in zip(CHOSEN, rows, strict=True):
        shown = ", ".join(f"{PREFIX}{name} {seconds:.0f}" for name, seconds in found)
        print(f"| {fault.title} | {shown or 'none'} |")  # noqa: T201
    assert {} == {scene.name: scene.failure for scene in scenes if scene.failure}
    first = {scene.name: found[0][0] if found else None for scene, found in zip(scenes, rows, strict=True)}
    assert {fault.name: fault.first_alert for fault in CHOSEN} == first


def measured(scenes: list[Scene], timing: Timing, folder: Path) -> Alerts:
    """Make all faults at the same time, and return the alerts."""

    def make(fault: Fault, scene: Scene) -> None:
        try:
            fault.make(scene)
        except Exception as error:  # noqa: BLE001  # the test fails with it, after it has shown the other faults
            scene.failure = error
            timing.all_serve.abort()

    with ThreadPoolExecutor(len(scenes)) as threads:
        for fault, scene in zip(CHOSEN, scenes, strict=True):
            threads.submit(make, fault, scene)
        try:
            timing.all_serve.wait(900)
            with prometheus(folder, [(scene.name, scene.port, scene.rate) for scene in scenes]) as watching:
                timing.watched_since = time.time()
                time.sleep(HEALTHY_SECONDS)
                timing.all_ends = time.monotonic() + FAULTY_SECONDS
                timing.faults_begin.set()
                time.sleep(FAULTY_SECONDS)
                return watching.alerts()
        except threading.BrokenBarrierError:
            return {}  # a fault could not be prepared
        finally:
            timing.all_serve.abort()
            timing.all_ends = time.monotonic()
            timing.faults_begin.set()


def row(scene: Scene, alerts: Alerts) -> list[tuple[str, float]]:
    """The alerts of a fault with the seconds until they fire, the first one first."""
    firing = [
        (name, since - (scene.began))
        for (namespace, name, state), since in alerts.items()
        if namespace == scene.name and state == "firing"
    ]
    return sorted(firing, key=lambda alert: alert[1])
