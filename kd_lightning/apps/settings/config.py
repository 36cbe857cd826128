"""What a configuration is, once it is resolved."""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]
"""A resolved configuration in plain containers."""
