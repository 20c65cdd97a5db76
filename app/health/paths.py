"""The paths that orchestrators and Prometheus request."""

from typing import Final

LIVE: Final = "/health"
READY: Final = "/health/ready"
METRICS: Final = "/metrics"

PROBES: Final = frozenset({LIVE, READY, METRICS})
"""Never rate limited, served under any host name, logged at debug level."""

OPS_PORT_ONLY: Final = PROBES - {LIVE}
"""Where OPS_PORT is set, these answer at that port only."""
