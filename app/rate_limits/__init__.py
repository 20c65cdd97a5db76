"""Rate limits, counted over all workers of a host and, with Redis, over all hosts."""

from app.rate_limits.limiter import limiter
from app.rate_limits.limits import RateLimitMetrics, RateLimits

__all__ = ["RateLimitMetrics", "RateLimits", "limiter"]
