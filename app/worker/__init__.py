"""The worker that Gunicorn runs, and the master that replaces workers without losing requests."""

from app.worker.limits import Limits as Limits
from app.worker.worker import Worker as Worker
