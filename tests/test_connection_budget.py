import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.connection_budget import Budget, worker_share
from app.errors import StartupError

BUDGETS = st.integers(1, 10_000)
WORKERS = st.integers(1, 256)
LIMITS = st.integers(0, 20_000)


@given(BUDGETS, WORKERS)
def test_the_budget_holds_with_one_worker_more(budget, workers):
    """All workers and the one that replaces another stay within the budget together, and leave none of it unused."""
    try:
        connections = worker_share(budget=budget, workers=workers)
    except StartupError:
        assert budget < workers + 1
    else:
        assert 1 <= connections
        assert connections * (workers + 1) <= budget < (connections + 1) * (workers + 1)


@given(st.integers(1, 256), WORKERS)
def test_the_refusal_of_a_small_budget_says_what_to_change(budget, workers):
    """The sentence names both variables, and following either half of it works where it can."""
    assume(budget <= workers)

    with pytest.raises(StartupError, match=f"DATABASE_CONNECTIONS is {budget}, .* WEB_CONCURRENCY"):
        worker_share(budget=budget, workers=workers)

    assert 1 == worker_share(budget=workers + 1, workers=workers)
    if budget > 1:
        assert 1 == worker_share(budget=budget, workers=budget - 1)


def test_the_refusal_of_one_connection_names_no_number_of_workers():
    """One connection is too few for any number of workers."""
    with pytest.raises(StartupError, match=r"WEB_CONCURRENCY 1 and one worker .*: set it to at least 2\.$"):
        worker_share(budget=1, workers=1)


@pytest.mark.parametrize(
    ("budget", "workers", "connections"), [(20, 2, 6), (20, 1, 10), (2, 1, 1), (3, 2, 1), (100, 4, 20)]
)
def test_a_workers_share_is_the_budget_divided_by_workers_plus_one(budget, workers, connections):
    """The quotient is rounded down."""
    assert connections == worker_share(budget=budget, workers=workers)


@given(st.integers(1, 100), BUDGETS, LIMITS, st.none() | LIMITS, st.none() | LIMITS)
def test_a_budget_fits_if_each_limit_of_the_server_allows_it(instances, connections, server, role, database):
    """All instances and a migration together stay within the limit of the server, the role and the database."""
    budget = Budget(
        instances=instances, connections_per_instance=connections,
        server_connections=server, role_connections=role, database_connections=database,
    )  # fmt: skip

    wanted = instances * connections + 2
    limits = [limit for limit in (server, role, database) if limit is not None]
    assert wanted == budget.wanted
    assert min(limits) == budget.available
    assert budget.fits == all(wanted <= limit for limit in limits)
