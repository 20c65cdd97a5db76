"""The paths of the probes and of the metrics."""

from typing import Final

LIVE: Final = "/health"
READY: Final = "/health/ready"
METRICS: Final = "/metrics"

PROBES: Final = frozenset({LIVE, READY, METRICS})
"""These are never rate limited, are served under any host name, and are logged at debug level."""

OPS_PORT_ONLY: Final = PROBES - {LIVE}
"""If OPS_PORT is set, these are served at that port only."""
