from pipeline.runtime.describe import kl_as_text


def test_a_list_of_kl_is_told_by_its_sum_and_by_how_many_dimensions_carry_anything():
    assert kl_as_text((2.5, 0.01, 0.0099, 0.0)) == "2.52 nats, 2 of 4 dimensions >= 0.01"
