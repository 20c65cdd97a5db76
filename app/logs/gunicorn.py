"""The logger that Gunicorn's master and its workers use."""

import logging

from gunicorn.config import Config
from gunicorn.glogging import Logger

from app.logs.foreign import Adopted


class GunicornLogger(Logger):
    """Gives Gunicorn's lines to `app.logs`, which `gunicorn.conf.py` has configured before the first of them."""

    def setup(self, cfg: Config) -> None:
        """Have one handler, ours: uvicorn-worker copies this list and the level to Uvicorn's loggers."""
        self.cfg = cfg
        self._access_log_enabled = False
        self.error_log.handlers = [Adopted()]
        self.error_log.propagate = False
        self.error_log.setLevel(logging.getLogger().level)
        self.access_log.handlers = []
