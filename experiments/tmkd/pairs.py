"""Question-passage pairs without labels, of all sets at hand, in QNLI's columns: the corpus of the first stage.

    python experiments/tmkd/pairs.py PATH pairs.parquet

``PATH`` holds ``glue/qnli`` and ``other/{webqa_kd,wikiqa,trecqa}``, each with ``train.parquet``. A pair that stands
there twice is taken once; pairs of QNLI's, WikiQA's and TREC-QA's validation and of WebQA's test split are left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SETS = {
    "glue/qnli": (("question", "sentence"), ("validation",)),
    "other/webqa_kd": (("question", "answer"), ("test",)),
    "other/wikiqa": (("question", "answer"), ("validation",)),
    "other/trecqa": (("question", "answer"), ("validation",)),
}
"""Folder -> its two columns, and the splits that are evaluated."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("path", type=Path, help="folder of the sets")
    made.add_argument("output", type=Path, help="parquet file to write")
    return made


def read(path: Path, columns: tuple[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of a file."""
    table = pq.read_table(path, columns=list(columns))
    yield from zip(*(table[name].to_pylist() for name in columns), strict=True)


def main() -> None:
    """Write the corpus, and say how many pairs each set gave."""
    args = parser().parse_args()
    needed = [f"{folder}/{split}.parquet" for folder, (_, splits) in SETS.items() for split in ("train", *splits)]
    if missing := [name for name in needed if not (args.path / name).is_file()]:
        parser().error(f"{args.path} has no {', '.join(missing)}")
    if not args.output.parent.is_dir():
        parser().error(f"{args.output.parent} is no folder, in which {args.output.name} would be written")
    left_out = {
        pair
        for folder, (columns, splits) in SETS.items()
        for split in splits
        for pair in read(args.path / folder / f"{split}.parquet", columns)
    }
    found: dict[tuple[str, str], None] = {}
    for folder, (columns, _) in SETS.items():
        before = len(found)
        found |= dict.fromkeys(
            pair for pair in read(args.path / folder / "train.parquet", columns) if pair not in left_out
        )
        print(f"{folder}: {len(found) - before:,} pairs")
    questions, passages = zip(*found, strict=True)
    pq.write_table(pa.table({"question": questions, "sentence": passages}), args.output, compression="zstd")
    print(f"{args.output}: {len(found):,} pairs")


if __name__ == "__main__":
    main()
