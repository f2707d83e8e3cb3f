"""What nura tells of itself while it works: each decision with its reason, each exchange with a provider.

The standard library's logging, under ``nura.decisions`` and ``nura.exchanges``: shown by ``-vv``, or by ``NURA_LOG`` under
cron. Never a key, a body or a record: what is told is scrubbed as every other word is, and the requests' own content is
never handed over.

logging is imported by whoever wants to listen. Where nobody has, there is nobody to tell, and a quick command stays quick.
"""

import sys
from collections.abc import Mapping

from nura_cli import scrub
from nura_cli.errors import UsageError

VARIABLE = "NURA_LOG"
"""The environment variable: ``info`` shows decisions, ``debug`` exchanges too."""
_LEVELS = ("info", "debug")


def decided(words: str, *values: object) -> None:
    """Tell of a decision, with its reason.

    Args:
        words: with ``%s`` for each value, as logging has it.
    """
    _tell("nura.decisions", "INFO", words, values)


def exchanged(words: str, *values: object) -> None:
    """Tell of an exchange with a provider, in words as :func:`decided`."""
    _tell("nura.exchanges", "DEBUG", words, values)


def _tell(name: str, level: str, words: str, values: tuple[object, ...]) -> None:
    """Hand a message to the standard library's logging, if anybody has loaded it; secrets are taken out."""
    logging = sys.modules.get("logging")
    if logging is None:
        return
    logger, number = logging.getLogger(name), getattr(logging, level)
    if logger.isEnabledFor(number):
        logger.log(number, scrub.clean(words % values))


def show(verbosity: int, environment: Mapping[str, str]) -> None:
    """Write what is told to standard error from now on, one line each with the time (UTC), if that is asked for.

    Args:
        verbosity: how often ``-v`` was given; twice asks for everything.
        environment: the process's variables.

    Raises:
        UsageError: the variable holds something else than a level.
    """
    wanted = environment.get(VARIABLE, "").strip().lower()
    if wanted and wanted not in _LEVELS:
        raise UsageError(f"{VARIABLE}={wanted}: use {' or '.join(_LEVELS)}")
    if verbosity < 2 and not wanted:
        return
    import logging
    import time

    form = logging.Formatter("%(asctime)s.%(msecs)03dZ %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    form.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(form)
    handler.addFilter(_printable)
    logger = logging.getLogger("nura")
    logger.handlers[:] = [handler]
    logger.setLevel("DEBUG" if verbosity > 1 else wanted.upper())
    logger.propagate = False
    logging.raiseExceptions = False  # a log that cannot be written stops no work


def _printable(record: object) -> bool:
    """Make control characters of a message visible: words of providers and models are data."""
    message = str(getattr(record, "msg", ""))
    record.msg = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)  # type: ignore[attr-defined]
    return True
