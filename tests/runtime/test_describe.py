from pipeline.runtime.describe import kl_as_text, labels_as_text, scores_as_text
from pipeline.runtime.scores import ScoreScale


def test_a_list_of_kl_is_told_by_its_sum_and_by_how_many_dimensions_carry_anything():
    assert kl_as_text((2.5, 0.01, 0.0099, 0.0)) == "2.52 nats, 2 of 4 dimensions >= 0.01"


def test_classes_are_told_with_the_values_that_stand_for_them():
    assert labels_as_text(("ant", "be\ne")) == r"0 ant, 1 'be\ne'"


def test_scores_are_told_by_their_quantiles():
    scale = ScoreScale(4, (0.0, 0.5, 0.995), (-1.25, 80.04, 200.0))
    expected = "-1.2 at 0 %, 80.0 at 50 %, 200.0 at 99.5 % of the validation images (nats, 4 samples of z)"
    assert scores_as_text(scale) == expected
