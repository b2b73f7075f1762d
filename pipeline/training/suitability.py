"""Does the likelihood suit the values? One that does not is refused; of a matter of taste a warning speaks."""

from collections.abc import Mapping
from typing import Any

from pipeline.dataset.values import SUITABLE
from pipeline.errors import UserError
from pipeline.params import Params


def check_likelihood(params: Params, values: Mapping[str, Any]) -> str | None:
    """A warning, or None where the likelihood suits.

    Args:
        params: of which `model.likelihood`, `train.binarize` and `train.objective` count.
        values: what prepare found in the images (meta.json, `values`).

    Raises:
        UserError: the likelihood would give no probability of such values, or one without bound.
    """
    name, kind = params.model.likelihood, str(values["kind"])
    if params.train.binarize != "none":  # params allow a Bernoulli alone with it
        if kind != "colour":
            return None
        problem = "the images are in colour: what is measured would be eight colours drawn from them, not the images"
        return _verdict(params, problem, kind, refused=True)
    neither = 1 - float(values["binary_fraction"])
    if name == "bernoulli":
        if kind == "binary":
            return None
        problem = f"{neither:.0%} of the values are neither 0 nor 255: the ELBO would be no likelihood"
        return _verdict(params, problem, kind, refused=True)
    if kind == "binary":
        problem = "all values are 0 or 255, on which a model of grey values has nothing to add, and a density no bound"
        return _verdict(params, problem, kind, refused=True)
    if kind == "near-binary" and name == "gaussian":
        problem = f"all but {neither:.0%} of the values are 0 or 255: no bell lies around them"
        return _verdict(params, problem, kind, refused=False)
    return None


def _verdict(params: Params, problem: str, kind: str, refused: bool) -> str:
    """The line that says so, as a return value or as an error; a plain auto-encoder has no likelihood to be wrong."""
    likelihood, binarize = params.model.likelihood, params.train.binarize
    line = f"params.yaml: model.likelihood is {likelihood!r} with train.binarize: {binarize}, but {problem}; "
    better = SUITABLE[kind] if binarize == "none" else f"{SUITABLE[kind]}, with train.binarize: none"
    if refused and params.train.objective != "autoencoder":
        raise UserError(f"{line}expected model.likelihood: {better}")
    return f"{line}better model.likelihood: {better}"
