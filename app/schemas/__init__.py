"""The bodies that clients send and get: the only place, beside the routers, that knows Pydantic."""
