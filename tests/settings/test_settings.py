"""What the settings are when nothing is set, and which combinations are refused."""

import pytest

from app.errors import StartupError
from app.settings import Settings


def test_no_setting_is_required_to_read_them(environment):
    """Every setting has a default. DATABASE_URL is required only where it is used."""
    settings = Settings.load()

    with pytest.raises(StartupError, match=r"^DATABASE_URL is not set: write it as postgresql://"):
        settings.read_database_url()


def test_two_ports_that_are_equal_are_refused(environment):
    """The sentence names both settings."""
    environment("OPS_PORT", "8000")

    with pytest.raises(StartupError, match=r"^OPS_PORT and PORT must differ"):
        Settings.load()
