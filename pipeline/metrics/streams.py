"""The streams of `evaluate.seed`: every use of chance in a measurement has a number of its own.

Two that shared one would draw related noise, unseen; so the numbers stand side by side, and none twice.
"""

from enum import IntEnum, unique


@unique
class Stream(IntEnum):
    """The first number after the seed in `stream_key`. Another number gives other digits of what is measured."""

    POSTERIOR = 0  # of q(z|x), for the ELBO and the importance bound
    TEST_BINARIZATION = 1
    FIGURES = 2
    TRAIN_BINARIZATION = 3
    CODES = 4  # one z for each image of a split
    AMORTISATION_SEARCH = 5
    AMORTISATION_MEASURE = 6
    TRAIN = 7  # a seed of its own, of what is measured of training images beside test images
    ANNEALING = 8
    MARGINAL = 9  # HMC of the paper's estimate of log p(x)
    TRAINING_CODES = 11
    MIXTURE = 12
    SAMPLES = 13
    CLASSIFIER = 14
    SAMPLE_LABELS = 15
