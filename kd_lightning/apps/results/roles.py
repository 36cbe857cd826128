"""Whose scores a run has."""

from __future__ import annotations

ROLES = ("teacher", "ensemble", "baseline", "student", "baseline_fine_tuned", "student_fine_tuned")

GROUPS = ("with a teacher", "without a teacher")
"""Of tasks, where a run has both."""

MEASURED = ("teacher", "baseline", "student")
"""Whose size and latency are told."""
