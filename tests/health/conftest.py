from pathlib import Path
from textwrap import dedent

import pytest

from app.health.schema_state import Revisions


@pytest.fixture
def revisions(tmp_path: Path) -> Revisions:
    """Three revisions, one after the other."""
    (tmp_path / "versions").mkdir()
    for number, (name, before) in enumerate([("one", None), ("two", "one"), ("three", "two")]):
        script = f"""
            revision = {name!r}
            down_revision = {before!r}
        """
        Path(tmp_path, "versions", f"{number}.py").write_text(dedent(script))
    return Revisions(tmp_path)
