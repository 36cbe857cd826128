"""Placeholder."""

TASKS: tuple[str, ...] = ()
SIZES: dict[str, int] = {}


def columns(task, split, *, seed=0):
    return {}
