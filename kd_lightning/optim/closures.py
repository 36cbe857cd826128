"""The closure that Lightning gives an optimiser's step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def evaluated(closure: Callable[[], Any] | None) -> Any:
    """Return what the closure returns, evaluated with gradients; of none None."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
