"""The route handlers. Each one translates the request, makes one call, and translates the result."""
