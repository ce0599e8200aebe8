"""Trackers: what a session reports by round, in files and in other tools."""

from fedpkg.tracking.base import TrackedRound, TrackedRun, Tracker
from fedpkg.tracking.registry import register_tracker

__all__ = ["TrackedRound", "TrackedRun", "Tracker", "register_tracker"]
