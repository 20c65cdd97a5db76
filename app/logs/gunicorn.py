"""The logger that Gunicorn's master and its workers use."""

import logging

from gunicorn.config import Config
from gunicorn.glogging import Logger

from app.logs.capture import EventHandler


class GunicornLogger(Logger):
    """Writes Gunicorn's lines through `app.logs`, which `gunicorn.conf.py` configures before the first line."""

    def setup(self, cfg: Config) -> None:
        """Use one handler, ours. The worker class of uvicorn-worker copies it and the level to Uvicorn's loggers."""
        self.cfg = cfg
        self._access_log_enabled = False
        self.error_log.handlers = [EventHandler()]
        self.error_log.propagate = False
        self.error_log.setLevel(logging.getLogger().level)
        self.access_log.handlers = []
