"""The numbers and names in the guide for operators agree with the code and the manifests."""

import re

from app.connection_budget import Budget, share
from app.settings import Settings
from tests.cluster import ROLES
from tests.paths import ROOT

GUIDE = ROOT / "docs" / "operations"


def test_the_example_of_the_connection_budget_is_right():
    """The numbers in the example are those that the service calculates."""
    example = next(part for part in (GUIDE / "scale.md").read_text().split("\n\n") if part.startswith("For example"))
    (
        pods, each, instances, each_again, migrator, wanted, maximum, reserved, available,
        workers, budget_of_one, parts, each_worker, processes, least, most,
    ) = map(int, re.findall(r"\d+", example))  # fmt: skip

    budget = Budget(instances=instances, connections_per_instance=each, server_connections=maximum - reserved)
    assert (pods + 1, each, instances * each + migrator) == (instances, each_again, wanted)
    assert (budget.wanted, budget.available, budget.fits) == (wanted, available, True)
    assert (each, workers, workers + 1) == (budget_of_one, parts, processes)
    assert {share(budget=each, parts=workers, number=number) for number in range(workers)} == {each_worker}
    shares = {share(budget=each, parts=processes, number=number) for number in range(processes)}
    assert (min(shares), max(shares)) == (least, most)


def test_the_limit_of_the_role_fits_the_connection_budget():
    """The limit in roles.sql is in the guide, and fits three instances with the default of DATABASE_CONNECTIONS."""
    (limit,) = map(int, re.findall(r"ALTER ROLE items_app .*CONNECTION LIMIT (\d+)", ROLES.read_text()))
    each = Settings.model_fields["database_connections"].default

    paragraph = next(
        part for part in (GUIDE / "roles.md").read_text().split("\n- ") if part.startswith("**Connections")
    )

    assert {str(limit), str(each)} <= set(re.findall(r"\d+", paragraph))
    assert Budget(instances=3, connections_per_instance=each, server_connections=97, role_connections=limit).fits
