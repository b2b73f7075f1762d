"""What is said of a step whose loss or gradient is not finite."""

import torch
from torch import Tensor

from pipeline.vae.bounds import Bound

_MOST_EXAMPLES = 8  # named in a message


class NonFiniteError(Exception):
    """A step that cannot be taken; its text is one line that names the step, its examples and the terms."""


def describe_terms(epoch: int, step: int, examples: Tensor, bound: Bound) -> str:
    """Name step 0, 1, ... of an epoch, the examples whose terms are not finite, and the terms' means.

    Args:
        epoch: 1, 2, ...
        step: in the epoch.
        examples: of the step, int64 [n], indices into the training split.
        bound: of these examples, each term [n].
    """
    finite = bound.recon.isfinite() & bound.kl.isfinite()
    culprits = examples[~finite] if not finite.all() else examples
    named = ", ".join(str(example) for example in culprits[:_MOST_EXAMPLES].tolist())
    more = f" and {len(culprits) - _MOST_EXAMPLES} more" if len(culprits) > _MOST_EXAMPLES else ""
    what = "the loss" if not finite.all() else "the gradient, though not the loss,"
    recon, kl = (torch.mean(term).item() for term in (bound.recon, bound.kl))
    return (
        f"{what} is not finite at epoch {epoch}, step {step + 1} (recon {recon:g}, kl {kl:g}; "
        f"training examples {named}{more}); the update was not applied"
    )
