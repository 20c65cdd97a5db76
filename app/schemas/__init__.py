"""The request and response bodies. Only this package and the routers use Pydantic."""
