"""The middleware, one concern a module."""
