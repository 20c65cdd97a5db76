"""Bearer tokens: who sends a request, and what that client may do."""

from app.auth.principal import Principal

__all__ = ["Principal"]
