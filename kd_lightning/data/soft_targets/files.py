"""Files of ids and logits: safetensors, memory-mapped when they are read."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


def write_file(path: Path, example_id: Tensor, logits: Tensor) -> None:
    """Write ids ``[n]`` and logits ``[n, C]`` to a file."""
    save_file({"example_id": example_id.contiguous(), "logits": logits.float().contiguous()}, path)


def join_files(chunks: Sequence[Path], path: Path) -> None:
    """Write ids and logits of several files into one, in order of their first ids; one at a time is in memory."""
    chunks = sorted(chunks, key=_first_id)
    rows = sum(_rows(chunk) for chunk in chunks)
    header: dict[str, Any] = {}
    start = 0
    for name in ("example_id", "logits"):
        with safe_open(chunks[0], framework="pt") as file:
            like = file.get_slice(name)
            kind, (_, *rest) = like.get_dtype(), like.get_shape()
        size = rows * math.prod(rest) * {"I64": 8, "F32": 4}[kind]
        header[name] = {"dtype": kind, "shape": [rows, *rest], "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    with path.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name in header:
            for chunk in chunks:
                with safe_open(chunk, framework="pt") as file:
                    out.write(file.get_tensor(name).numpy().tobytes())


def _rows(chunk: Path) -> int:
    with safe_open(chunk, framework="pt") as file:
        return int(file.get_slice("example_id").get_shape()[0])


def _first_id(chunk: Path) -> int:
    with safe_open(chunk, framework="pt") as file:
        return int(file.get_slice("example_id")[:1])


def read_file(path: Path) -> tuple[Tensor, Tensor]:
    """Return ids ``[n]`` and logits ``[n, C]`` of a file, memory-mapped."""
    with safe_open(path, framework="pt") as file:
        return file.get_tensor("example_id"), file.get_tensor("logits")
