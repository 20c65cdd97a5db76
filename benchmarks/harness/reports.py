"""The result of a benchmark: tables and numbers, written as JSON and Markdown, and plotted as SVG."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.harness import interpreter
from benchmarks.harness.plots import Plot

_LIBRARIES = ("asyncpg", "fastapi", "gunicorn", "orjson", "pydantic", "sqlalchemy", "uvicorn")


@dataclass(kw_only=True)
class Table:
    """A heading and rows of text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The table as Markdown, with numbers aligned to the right."""
        rule = ["---", *("---:" for _ in self.columns[1:])]
        lines = [self.columns, rule, *self.rows]
        return f"## {self.title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A common claim about a pattern, and what was measured here."""

    claimed: str
    measured: str
    why: str
    """The reason, and what this service does."""


@dataclass(kw_only=True)
class Report:
    """The result of one benchmark."""

    title: str
    method: str
    tables: list[Table]
    plot: Plot | None = None
    claims: list[Claim] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    """The numbers of the tables, for programs."""

    def write(self, folder: Path) -> None:
        """Write `result.json`, `result.md` and, with a plot, `result.svg`."""
        claims = [{"claimed": claim.claimed, "measured": claim.measured, "why": claim.why} for claim in self.claims]
        result = {"title": self.title, "machine": _machine(), "facts": self.facts, "claims": claims}
        (folder / "result.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
        machine = ", ".join(f"{name} {value}" for name, value in _machine().items())
        image = f"![{self.plot.title}](result.svg)\n\n" if self.plot else ""
        tables = "\n".join(table.markdown() for table in self.tables)
        method = " ".join(self.method.split())
        (folder / "result.md").write_text(f"# {self.title}\n\n{method}\n\nMeasured with {machine}.\n\n{image}{tables}")
        if self.plot:
            self.plot.draw(folder / "result.svg")


def _machine() -> dict[str, str]:
    """The versions and the number of CPUs of the measurement."""
    libraries = {name: version(name) for name in _LIBRARIES}
    return {"Python": interpreter.release(), "CPUs": str(os.cpu_count()), **libraries}
