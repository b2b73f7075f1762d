"""Of which metrics more is better: one table for all who put models in order."""

import re

_MORE_IS_BETTER = {
    "stderr": False,
    "auroc": True,
    "accuracy": True,
    "active": True,
    "bits": False,
    "checks": False,
    "copies": False,
    "coverage": True,
    "density": True,
    "elbo": True,
    "error": False,
    "fid": False,
    "gap": False,
    "information": True,
    "kid": False,
    "kl": False,
    "levels": False,
    "located": True,
    "loss": False,
    "ms": False,
    "nll": False,
    "precision": True,
    "psnr": True,
    "ratio": True,
    "recall": True,
    "recon": True,
    "second": True,
    "speedup": True,
}
"""By words of a metric's name. Of a name's words the one that stands first here decides: less is better of any stderr,
and more of the area under a curve, were it that of an error map."""


def more_is_better(metric: str) -> bool | None:
    """Whether more of a metric is better, by its name; None of one that the table does not know."""
    words = re.findall(r"[a-z]+", metric.lower())
    return next((better for word, better in _MORE_IS_BETTER.items() if word in words), None)
