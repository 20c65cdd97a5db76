"""Rate limits, shared by the workers of a host and, with Redis, by all hosts."""

from app.rate_limits.limiter import limiter
from app.rate_limits.limits import Observer, RateLimits

__all__ = ["Observer", "RateLimits", "limiter"]
