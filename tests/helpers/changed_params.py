"""The params of the repository with some of them changed, and how the change is answered."""

import copy
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.params import check_params, read_yaml

ROOT = Path(__file__).parents[2]
REAL = read_yaml(ROOT / "params.yaml")


def changed(changes):
    """The real params with some of them changed: {"train.beta": -1.0}."""
    content = copy.deepcopy(REAL)
    for name, value in changes.items():
        section, field = name.split(".")
        content[section][field] = value
    return content


def message(content):
    with pytest.raises(UserError) as error:
        check_params(content, "params.yaml")
    return str(error.value)
