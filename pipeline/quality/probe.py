"""A linear probe: how well a straight line through z tells the classes (Alain and Bengio 2016, arXiv 1610.01644)."""

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

_ITERATIONS = 1000


def probe_accuracy(codes: Tensor, labels: Tensor, test_codes: Tensor, test_labels: Tensor) -> float:
    """Accuracy on test codes [m, d] of a logistic regression on standardised codes [n, d]; labels are int64.

    Its L2 penalty is scikit-learn's, C = 1. The codes hold two classes or more.
    """
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=_ITERATIONS))
    probe.fit(codes.double().cpu().numpy(), labels.numpy())
    return float(probe.score(test_codes.double().cpu().numpy(), test_labels.numpy()))
