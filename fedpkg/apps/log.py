"""The logger of apps: a ServerApp's lines are lines of the session's log, a client's are in the log of its task."""

from __future__ import annotations

import logging

logger = logging.getLogger("flwr")  # the name under which apps look it up
log = logger.log
