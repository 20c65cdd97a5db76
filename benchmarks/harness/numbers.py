"""Ratios of paired measurements, and the format of numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Ratio:
    """The ratio of two measurements that were taken one directly after the other, over several pairs."""

    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """The range of the ratios, relative to their median."""
        return (self.high - self.low) / self.median

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def paired(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio:
    """The median of the pairs' ratios, with the quartiles."""
    ratios = sorted(over / under for over, under in zip(numerators, denominators, strict=True))
    quarter = len(ratios) // 4
    return Ratio(median(ratios), ratios[quarter], ratios[-1 - quarter])


def format_number(value: float) -> str:
    """The number with three significant digits, or as an integer with thousands separators."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
