"""What may be asked of sampler.onnx, and the rows that ask for it."""

import operator

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.runtime.labels import LABEL
from pipeline.runtime.noise import check_first, check_seed

MAX_TEMPERATURE = 1000  # of any use; far beyond it float32 overflows, and an infinite latent has no image

_NUMBER = (int, float, np.integer, np.floating)


Rows = dict[str, NDArray[np.int64] | NDArray[np.float32]]


def rows(n: int, seed: int, first: int, temperature: float, label: int | None = None) -> Rows:
    """The inputs for images number `first` to `first + n - 1` of `seed`, each [n]; with `label` if one is given."""
    seeds, temperatures = np.empty(n, np.int64), np.empty(n, np.float32)
    seeds.fill(seed)
    temperatures.fill(temperature)
    asked: Rows = {"seed": seeds, "index": np.arange(first, first + n, dtype=np.int64), "temperature": temperatures}
    if label is not None:
        asked[LABEL] = np.full(n, label, np.int64)
    return asked


def check_draw(n: int, seed: int, first: int, temperature: float) -> tuple[int, int, float]:
    """`seed`, `first` and `temperature` as Python's own numbers, which do not overflow in what follows.

    Raises:
        UserError: a value is of another kind or out of range: images `first` to `first + n - 1` cannot be drawn.
    """
    seed, first = check_seed(seed), check_first(first, n, "n")
    number = isinstance(temperature, _NUMBER) and not isinstance(temperature, bool)
    if not number or not 0 <= temperature <= MAX_TEMPERATURE:  # a NaN is refused too
        raise UserError(f"temperature is {temperature!r}; expected a number from 0 to {MAX_TEMPERATURE}")
    return seed, first, float(temperature)


def whole_number(name: str, value: int, least: int, most: int | None = None) -> int:
    """The value as an int.

    Raises:
        UserError: it is not a whole number, or is below `least` or above `most`.
    """
    expected = f"a whole number >= {least}" if most is None else f"a whole number from {least} to {most}"
    try:
        number = operator.index(value)
    except TypeError:
        raise UserError(f"{name} is {value!r}; expected {expected}") from None
    if isinstance(value, bool) or number < least or (most is not None and number > most):
        raise UserError(f"{name} is {value!r}; expected {expected}")
    return number
