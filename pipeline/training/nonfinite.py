"""What is said of a step whose loss or gradient is not finite."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.vae.bounds import Bound

_MOST_EXAMPLES = 8  # named in a message


class NonFiniteError(Exception):
    """A step that cannot be taken; its text is one line that names the step, its examples and the terms.

    Attributes:
        batch: a row for each example of the step: `example`, its index, and its terms `recon` and `kl`, in nats.
    """

    def __init__(self, text: str, batch: Sequence[dict[str, float | str]] = ()) -> None:
        super().__init__(text)
        self.batch = batch


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


def batch_rows(examples: Tensor, bound: Bound) -> list[dict[str, float | str]]:
    """The examples of a step, int64 [n], with the terms of each, as rows."""
    columns = (examples.tolist(), bound.recon.tolist(), bound.kl.tolist())
    return [{"example": example, "recon": recon, "kl": kl} for example, recon, kl in zip(*columns, strict=True)]
