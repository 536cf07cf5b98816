"""Logging: the format, and the levels of the libraries' loggers."""

import logging
from typing import Literal

import kopf

_TEXT_FORMAT = "%(asctime)s %(levelname)-8s %(name)s: %(message)s"
#: These log each request, watch event and probe, and add nothing to our own log lines.
_CHATTY_LOGGERS = ("httpx", "httpcore", "aiohttp.access", "kopf.objects", "kopf.activities.probe", "kubernetes")


def configure_logging(level: Literal["debug", "info", "warning", "error"], format_: Literal["text", "json"]) -> None:
    """Log records of this level and above to stderr, one line each."""
    kopf.configure(
        debug=level == "debug",
        log_format=kopf.LogFormat.JSON if format_ == "json" else _TEXT_FORMAT,  # type: ignore[arg-type]  # any format string will do
    )
    root = logging.getLogger()
    root.setLevel(level.upper())
    for handler in root.handlers:
        handler.addFilter(_soften_retries)
        if format_ == "json":
            handler.addFilter(_add_logger)
    for name in _CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


def _add_logger(record: logging.LogRecord) -> bool:
    """Have a JSON line name its logger: it has whatever a record has beside the usual attributes, and not its name."""
    record.logger = record.name
    return True


def _soften_retries(record: logging.LogRecord) -> bool:
    """Downgrade an error that kopf is going to retry to a warning: API servers are restarted now and then."""
    if record.name.startswith("kopf.") and record.levelno == logging.ERROR and "will retry" in record.getMessage():
        record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)
    return True
