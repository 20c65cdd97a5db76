"""The tools that all benchmarks share."""
