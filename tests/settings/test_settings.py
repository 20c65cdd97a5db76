"""What the settings are when nothing is set, and which combinations are refused."""

import pytest

from app.errors import StartupError
from app.settings import Settings

ADDRESS = "postgresql://u:hunter2@h/d"


def test_no_setting_is_required_to_read_them(environment):
    """Every setting has a default. DATABASE_URL is required only where it is used."""
    settings = Settings.load()

    with pytest.raises(StartupError, match=r"^DATABASE_URL is not set: write it as postgresql://"):
        settings.read_database_url()


@pytest.mark.parametrize(
    ("cpus", "connections", "workers"), [(1, "20", 1), (4, "20", 4), (32, "20", 19), (32, "1", 1), (999, "9999", 256)]
)
def test_the_default_number_of_workers_fits_database_connections(environment, monkeypatch, cpus, connections, workers):
    """The service starts on a machine with any number of CPUs, and each worker has a connection."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cpus)))
    monkeypatch.setattr("app.settings.cpus._quota", lambda _: None)
    environment("DATABASE_CONNECTIONS", connections)

    assert workers == Settings.load().web_concurrency


def test_a_malformed_setting_is_the_only_one_that_is_named(environment):
    """The default of WEB_CONCURRENCY depends on other settings, and is no failure of its own."""
    environment("DATABASE_CONNECTIONS", "many")

    with pytest.raises(StartupError, match=r"^DATABASE_CONNECTIONS must be a whole number\.$"):
        Settings.load()


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"OPS_PORT": "8000"}, "OPS_PORT and PORT must differ: write another port for OPS_PORT, or leave it out."),
        (
            {"OPS_PORT": "9000", "HOST": "unix:/tmp/samples-test-socket"},
            "OPS_PORT must not be set where HOST is a Unix socket",
        ),
        (
            {"MAX_BODY_BYTES": "2000000", "MAX_BUFFERED_BYTES": "5000000"},
            "MAX_BUFFERED_BYTES must be at least four times MAX_BODY_BYTES: set it to 8000000 or more",
        ),
        (
            {"DATABASE_URL": f"{ADDRESS}?options=-csearch_path%3Dtenant", "DATABASE_POOLER": "pgbouncer"},
            "DATABASE_URL must not have options (nor the environment PGOPTIONS) where DATABASE_POOLER is set, because",
        ),
        (
            {"DATABASE_URL": ADDRESS, "PGOPTIONS": "-cjit=off", "DATABASE_POOLER": "pgbouncer-prepared"},
            "DATABASE_URL must not have options (nor the environment PGOPTIONS)",
        ),
        (
            {"DATABASE_REPLICA_URL": f"{ADDRESS}?options=-cjit%3Doff", "DATABASE_POOLER": "pgbouncer"},
            "DATABASE_REPLICA_URL must not have options",
        ),
        ({"MAX_REQUESTS_JITTER": "10"}, "MAX_REQUESTS_JITTER does nothing without MAX_REQUESTS: set that too"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(environment, variables, sentence):
    """The sentence names both settings."""
    for name, value in variables.items():
        environment(name, value)

    with pytest.raises(StartupError) as refused:
        Settings.load()

    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize("pooler", ["none", "pgbouncer"])
def test_options_are_accepted_without_a_pooler(environment, pooler):
    """And for migrations always, which connect to PostgreSQL itself."""
    with_options = f"{ADDRESS}?options=-csearch_path%3Dtenant"
    environment("DATABASE_URL", with_options if pooler == "none" else ADDRESS)
    environment("DATABASE_POOLER", pooler)
    environment("MIGRATION_DATABASE_URL", with_options)

    assert {"options": "-csearch_path=tenant"} == Settings.load().read_migration_database_url().server_settings


@pytest.mark.parametrize("setting", ["database_url", "database_replica_url"])
def test_options_that_a_file_gets_later_are_refused(environment, tmp_path, setting):
    """The file is read again after a refused login, and the sentence is the same as at the start."""
    file = tmp_path / "url"
    file.write_text(ADDRESS)
    environment(f"{setting.upper()}_FILE", str(file))
    environment("DATABASE_POOLER", "pgbouncer")
    settings = Settings.load()
    file.write_text(f"{ADDRESS}?options=-cjit%3Doff")

    with pytest.raises(
        StartupError, match=f"^{setting.upper()} must not have options .*: run ALTER ROLE … SET search_"
    ):
        getattr(settings, f"read_{setting}")()
