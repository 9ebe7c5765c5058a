"""How far a run is. Public through shardyfusion.run_registry."""

from __future__ import annotations

from enum import Enum

RUN_RECORD_FORMAT_VERSION = 1


class RunStatus(str, Enum):
    """How far a run is."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


RunStatus.__module__ = "shardyfusion.run_registry"  # where pickles look for it
