"""Rate limits, shared by the workers of a host and, with Redis, by all hosts."""

from app.rate_limits.limiter import limiter
from app.rate_limits.limits import Observer, RateLimits
from app.rate_limits.middleware import EXEMPT, RateLimit

__all__ = ["EXEMPT", "Observer", "RateLimit", "RateLimits", "limiter"]
