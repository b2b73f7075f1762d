"""The input `label` of a conditional model's graphs, and the metadata entry that names its values."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.runtime.labels import LABEL, read_labels

Labels = NDArray[np.int64]


def labels_entry(classes: Sequence[str]) -> dict[str, str]:
    """The entry `labels` of the metadata: a JSON list of the names; none where there are no classes."""
    return {"labels": json.dumps(list(classes))} if classes else {}


def label_input(labels: Labels | None, rows: slice | NDArray[Any] = slice(None)) -> dict[str, Labels]:
    """What a graph takes beside the rest for some rows of the labels [n]; nothing where there are none."""
    return {} if labels is None else {LABEL: labels[rows]}


def in_class(label: int, count: int) -> dict[str, Labels]:
    """What a graph takes beside the rest for so many rows of one class."""
    return {LABEL: np.full(count, label, np.int64)}


def in_turn(classes: int, count: int, first: int = 0) -> Labels | None:
    """Each class in its turn, for rows from `first` on: int64 [count]; None where there are no classes."""
    return np.arange(first, first + count, dtype=np.int64) % classes if classes else None


def classes_of(session: Any, source: str) -> int:
    """How many classes an opened file knows; 0 where it takes no label."""
    return len(read_labels(session, source))
