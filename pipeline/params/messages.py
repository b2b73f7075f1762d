"""What pydantic finds wrong, in the words of params.yaml."""

import difflib
import re
from collections.abc import Sequence
from types import NoneType
from typing import get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

ALSO_CALLED: dict[str, tuple[str, ...]] = {
    "gpu": ("cuda",),
    "cnn": ("conv",),
    "resnet": ("conv",),
    "hvae": ("ladder",),
    "vae": ("elbo",),
    "beta_vae": ("elbo",),
    "beta_tcvae": ("tc",),
    "tcvae": ("tc",),
    "ae": ("autoencoder",),
    "bce": ("bernoulli",),
    "mse": ("gaussian",),
    "normal": ("gaussian", "standard"),
    "mixture_logistic": ("logistic_mixture",),
    "gmm": ("mixture",),
    "mog": ("mixture",),
    "realnvp": ("coupling", "flow"),
    "fashion": ("fashion-mnist",),
}
"""What others call choices of different params, where no likeness of letters leads to one, or to another."""

LISTS = {
    "prepare.image_size": "[28, 28]",
    "prepare.held_out_labels": "[4]",
    "model.hidden": "[400, 400]",
    "model.flow_hidden": "[64]",
}
"""An example of each param that is a list."""

ALIKE = 0.75
"""How alike a choice must be to be guessed, 1 the same: learnt is to learned, imagenet is not to images."""


def describe(errors: Sequence[ErrorDetails], document: type[BaseModel]) -> str:
    """The first of the errors that `document` met, as 'train.beta is -1.0; expected a number >= 0'."""
    unknown = [error for error in errors if error["type"] == "extra_forbidden"]
    error = errors[0] if errors[0]["type"] != "missing" or not unknown else unknown[0]  # misspelled is missing as well
    name = _name(error)
    if error["type"] == "extra_forbidden":
        return f"{name} is not a known param; {_suggestion(name, document)}"
    if error["type"] == "missing":
        return f"{name} is missing; expected a value" + " (a list may be too short)" * isinstance(error["loc"][-1], int)
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    # Where a value may be of several kinds, there is one error for each.
    expected = [_expectation(other) for other in errors if _name(other) == name]
    expected += ["null"] * _is_nullable(error, document)
    return f"{name} is {error['input']!r}; expected {', or '.join(expected)}{_nearest(errors, name)}"


def _name(error: ErrorDetails) -> str:
    # Past section and field, pydantic's path names the branch of a union that it tried; only list indices help.
    location = (*error["loc"][:2], *(part for part in error["loc"][2:] if isinstance(part, int)))
    return ".".join(str(part) for part in location)


def _nearest(errors: Sequence[ErrorDetails], name: str) -> str:
    """'; did you mean gaussian?' where a param takes one of some names, and the value found resembles one."""
    choices = [
        choice
        for error in errors
        if _name(error) == name and isinstance(error["input"], str)
        for choice in re.findall(r"'([^']+)'", str(error.get("ctx", {}).get("expected", "")))
    ]
    found = str(errors[0]["input"]).lower()
    if others := [other for other in ALSO_CALLED.get(found.replace("-", "_"), ()) if other in choices]:
        return f"; did you mean {others[0]}?"
    near = difflib.get_close_matches(found, choices, n=1, cutoff=ALIKE)
    return f"; did you mean {near[0]}?" if near else ""


def _is_nullable(error: ErrorDetails, document: type[BaseModel]) -> bool:
    """Whether the param itself (not an entry of its list) may be null."""
    if len(error["loc"]) != 2:
        return False
    section, field = error["loc"]
    fields = getattr(document.model_fields[str(section)].annotation, "model_fields", {})
    return NoneType in get_args(fields[field].annotation)


def _expectation(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    if "expected" in context:
        names = str(context["expected"]).replace("'", "")
        return f"one of {names}" if " or " in names else names
    bounds = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    for key, sign in bounds.items():
        if key in context:
            kind = "a whole number" if isinstance(context[key], int) else "a number"  # of a float, its bound is one too
            return f"{kind} {sign} {context[key]:.10g}"
    expectations = {
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "finite_number": "a finite number",
        "string_type": "text",
        "string_too_short": "some text",
        "string_pattern_mismatch": "a name of letters, digits, . _ and -",
        "tuple_type": f"a list, such as {LISTS.get(_name(error))}",
        "too_long": "fewer entries",
        "too_short": "at least one entry",
        "model_type": "a section of named params",
    }
    return expectations.get(error["type"], error["msg"])


def _suggestion(unknown: str, document: type[BaseModel]) -> str:
    sections = {name: field.annotation for name, field in document.model_fields.items()}
    known = list(sections)
    for name, section in sections.items():
        if unknown.startswith(f"{name}.") and section is not None:
            known = [f"{name}.{field}" for field in section.model_fields]
    near = difflib.get_close_matches(unknown, known, n=1)
    return f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
