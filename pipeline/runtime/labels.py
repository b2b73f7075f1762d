"""Conditional models: the graph's input `label`, int64 [n], and the names that its metadata gives to the values."""

import json
import operator
from typing import Any, SupportsIndex

from pipeline.errors import UserError

LABEL = "label"
Label = SupportsIndex | str
"""A class by its index, which may be numpy's whole number, or by its name."""


def read_labels(session: Any, source: str) -> tuple[str, ...]:
    """The class names, in order of index, that the entry `labels` of an opened file lists; none if it takes no label.

    Raises:
        UserError: the graph has the input `label`, but its metadata names no classes; errors name `source`.
    """
    if all(node.name != LABEL for node in session.get_inputs()):
        return ()
    text = session.get_modelmeta().custom_metadata_map.get("labels", "")
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    listed = isinstance(names, list) and bool(names) and all(isinstance(name, str) for name in names)
    if not listed or len(set(names)) != len(names):
        raise UserError(f"{source}: metadata labels is {text[:40]!r}; expected a JSON list of the names of the classes")
    return tuple(names)


def find_label(label: Label, labels: tuple[str, ...]) -> int:
    """The index of a class: a text is its name, or its index where no class has that name.

    Raises:
        UserError: there is no such class.
    """
    wanted = _name_or_index(label)
    if wanted in labels:
        return labels.index(str(wanted))
    if isinstance(wanted, str):
        index = int(wanted) if wanted.isascii() and wanted.isdecimal() and len(wanted) < 16 else -1
    else:
        index = wanted
    if not 0 <= index < len(labels):
        known = ", ".join(labels[:10]) + (", ..." if len(labels) > 10 else "")
        raise UserError(f"label is {wanted!r:.40}; expected one of {known}, or an index from 0 to {len(labels) - 1}")
    return index


def _name_or_index(label: Label) -> str | int:
    if isinstance(label, str):
        return label
    try:
        index = operator.index(label)
    except TypeError:
        index = None
    if index is None or isinstance(label, bool):
        raise UserError(f"label is {label!r:.40}; expected the name of a class, or its index")
    return index


def label_index(label: Label | None, labels: tuple[str, ...], graph: str) -> int | None:
    """The value of the input `label` that a class stands for; None where the graph takes no label.

    Args:
        label: as a caller gave it; None if none was given.
        labels: as `read_labels` gives them.
        graph: which graph it is for; errors name it.

    Raises:
        UserError: a label is given where there is none, is missing where there are, or is no class of the model.
    """
    if not labels:
        if label is not None:
            raise UserError(f"label is {label!r:.40}; expected none, since the {graph} of this model takes no label")
        return None
    if label is None:
        raise UserError(f"label is missing; expected one of {len(labels)} classes, by name or index")
    return find_label(label, labels)
