"""What a question found: tables and facts, written as JSON and Markdown, and plotted as SVG."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

_LIBRARIES = ("asyncpg", "fastapi", "gunicorn", "orjson", "pydantic", "sqlalchemy", "uvicorn")


@dataclass(kw_only=True)
class Table:
    """Rows of text under a heading."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The table as Markdown, numbers to the right."""
        rule = ["---", *("---:" for _ in self.columns[1:])]
        lines = [self.columns, rule, *self.rows]
        return f"## {self.title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What was claimed of a pattern, and what is true of it here."""

    claimed: str
    measured: str
    why: str
    """And what is done here."""


@dataclass(kw_only=True)
class Plot:
    """Horizontal bars in groups."""

    title: str
    unit: str
    groups: dict[str, dict[str, float]]
    """Values by group, then by name."""


@dataclass(kw_only=True)
class Report:
    """The answer to one question."""

    title: str
    method: str
    tables: list[Table]
    plot: Plot | None = None
    claims: list[Claim] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    """The numbers behind the tables."""

    def write(self, folder: Path) -> None:
        """Write `result.json`, `result.md` and, where there is something to plot, `result.svg`."""
        claims = [{"claimed": claim.claimed, "measured": claim.measured, "why": claim.why} for claim in self.claims]
        result = {"title": self.title, "machine": _machine(), "facts": self.facts, "claims": claims}
        (folder / "result.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
        machine = ", ".join(f"{name} {value}" for name, value in _machine().items())
        image = f"![{self.plot.title}](result.svg)\n\n" if self.plot else ""
        tables = "\n".join(table.markdown() for table in self.tables)
        method = " ".join(self.method.split())
        (folder / "result.md").write_text(f"# {self.title}\n\n{method}\n\nMeasured with {machine}.\n\n{image}{tables}")
        if self.plot:
            from benchmarks.harness.plots import draw  # noqa: PLC0415  # matplotlib takes a second to import

            draw(self.plot, folder / "result.svg")


def _machine() -> dict[str, str]:
    """What a reader has to know about where it was measured."""
    libraries = {name: version(name) for name in _LIBRARIES}
    return {"Python": platform.python_version(), "CPUs": str(os.cpu_count()), **libraries}
