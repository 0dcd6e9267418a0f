"""Bookkeeping that must not end a run: trackers, pictures, pages."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from cleft_bundle.errors import one_line
from cleft_bundle.secrets import masked

logger = logging.getLogger(__name__)

_MOST = 300  # characters of a reason
_told: set[tuple[str, str]] = set()


@contextmanager
def best_effort(what: str) -> Iterator[None]:
    """Go on where the enclosed bookkeeping fails, and warn of it once per kind of failure in a run.

    It is for what describes a run beside its result, and works as a decorator too. What is the result itself, such as
    weights or predictions, is not written under it.

    Args:
        what: what fails, such as ``MLflow``; it begins the warning.
    """
    try:
        yield
    except Exception as error:  # a tracker, a server and a full disk fail in many ways
        cause = (what, type(error).__name__)
        if cause not in _told:
            _told.add(cause)
            reason = masked(one_line(error, None))[:_MOST]
            logger.warning("%s: %s: %s; the run goes on without it", what, type(error).__name__, reason)
            logger.debug("the failure of %s", what, exc_info=True)


def begin_run() -> None:
    """Forget which failures were told: a new run tells its own."""
    _told.clear()
