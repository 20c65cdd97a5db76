"""What the guide for operators says beyond commands is what the code and the manifests say."""

import re

from app.connection_budget import Budget, worker_share
from tests.paths import ROOT

GUIDE = ROOT / "docs" / "operations"


def test_the_example_of_the_arithmetic_is_right():
    """The numbers of the scale page are those that the service itself comes to."""
    text = " ".join((GUIDE / "scale.md").read_text().split())
    sums = re.search(r"(\d+) pods and one surge, (\d+) connections each, are (\d+) . (\d+) \+ 2 = (\d+)", text)
    server = re.search(r"`max_connections = (\d+)` and (\d+) reserved slots there are (\d+), so it fits", text)
    workers = re.search(r"(\w+) workers have (\d+) ÷ (\d+) = (\d+) connections each", text)
    assert sums
    assert server
    assert workers

    pods, each, instances, _, wanted = map(int, sums.groups())
    maximum, reserved, available = map(int, server.groups())
    budget = Budget(instances=pods + 1, connections_per_instance=each, server_connections=maximum - reserved)
    assert (instances, wanted, available, True) == (pods + 1, budget.wanted, budget.available, budget.fits)
    assert ("Four", 12, 5, 2) == (workers[1], *map(int, workers.groups()[1:]))
    assert int(workers[4]) == worker_share(budget=int(workers[2]), workers=4)


def test_every_secret_of_the_manifests_is_made():
    """The deploy page makes each secret that a manifest mounts, and no other."""
    manifests = [file.read_text() for file in ROOT.glob("deploy/kubernetes/**/*.yaml")]
    mounted = {name for text in manifests for name in re.findall(r"secretName: ([\w-]+)", text)}

    assert mounted == set(re.findall(r"create secret generic ([\w-]+)", (GUIDE / "deploy.md").read_text()))
