"""The application that tests run: the service, with the samples beside its own resources."""

from fastapi import FastAPI

from app import main
from app.settings import Settings
from tests.sample.router import router


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the application of one worker. Gunicorn calls this without arguments."""
    return main.create_app(settings, resources=(*main.RESOURCES, router))
