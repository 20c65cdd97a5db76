import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.connection_budget import Budget, check_budget, share
from app.errors import StartupError

BUDGETS = st.integers(1, 10_000)
WORKERS = st.integers(1, 256)
LIMITS = st.integers(0, 20_000)


@given(BUDGETS, WORKERS)
def test_the_shares_are_the_whole_budget(budget, parts):
    """They differ by one at most."""
    shares = [share(budget=budget, parts=parts, number=number) for number in range(parts)]

    assert budget == sum(shares)
    assert max(shares) - min(shares) <= 1


@given(BUDGETS, WORKERS)
def test_every_worker_has_a_connection_while_one_is_replaced(budget, workers):
    """A budget that is not refused has at least one for each of `workers + 1` processes."""
    try:
        check_budget(budget=budget, workers=workers)
    except StartupError:
        assert budget < workers + 1
    else:
        assert 1 <= share(budget=budget, parts=workers + 1, number=workers)


@given(st.integers(1, 256), WORKERS)
def test_the_refusal_of_a_small_budget_says_what_to_change(budget, workers):
    """The sentence names both variables, and following either half of it works where it can."""
    assume(budget <= workers)

    with pytest.raises(StartupError, match=f"DATABASE_CONNECTIONS is {budget}, .* WEB_CONCURRENCY"):
        check_budget(budget=budget, workers=workers)

    check_budget(budget=workers + 1, workers=workers)
    if budget > 1:
        check_budget(budget=budget, workers=budget - 1)


def test_the_refusal_of_one_connection_names_no_number_of_workers():
    """One connection is too few for any number of workers."""
    with pytest.raises(StartupError, match=r"WEB_CONCURRENCY 1 and one worker .*: set it to at least 2\.$"):
        check_budget(budget=1, workers=1)


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
