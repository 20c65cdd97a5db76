import pytest

from app.settings import Settings


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """Sets variables in an environment without any of the settings, in a folder without a `.env`."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    return monkeypatch.setenv
