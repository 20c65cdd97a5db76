import pytest

from app.settings import Settings


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """Sets variables in an environment that has none of the settings yet, in a folder without a `.env`."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    return monkeypatch.setenv
