"""Medians, and ratios of what was measured side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Ratio:
    """One thing as a multiple of another one, each pair measured one right after the other."""

    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """How far apart the pairs are, as a part of their median."""
        return (self.high - self.low) / self.median

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def paired(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio:
    """The median of the pairs' ratios, and the middle half of them."""
    ratios = sorted(over / under for over, under in zip(numerators, denominators, strict=True))
    quarter = len(ratios) // 4
    return Ratio(median(ratios), ratios[quarter], ratios[-1 - quarter])


def plain(value: float) -> str:
    """A number with as many digits as it deserves."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
