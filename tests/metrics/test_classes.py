import pytest
import torch
from linear import conditional_linear_vae, images, model_of_class, split

from pipeline.metrics.aggregate import draw_codes
from pipeline.metrics.ais import Annealing, estimate_ais
from pipeline.metrics.amortisation import amortisation_gap
from pipeline.metrics.classes import class_rows
from pipeline.metrics.likelihood import estimate, recon_at_mean

EVERY = torch.arange(4)
MEASURES = {
    "bounds": lambda vae, given: torch.stack(estimate(vae, given, 20, 0, 30)[:5]),
    "recon at the mean": recon_at_mean,
    "codes": lambda vae, given: torch.cat([value.flatten() for value in draw_codes(vae, given, 0)]),
    "amortisation": lambda vae, given: amortisation_gap(vae, given, EVERY, 0),
    "annealing": lambda vae, given: estimate_ais(vae, given, EVERY, Annealing(10, 3, "linear", 0), 6),
}


@pytest.mark.parametrize("name", MEASURES)
def test_what_is_measured_is_for_each_class_that_of_the_model_of_this_class(name):
    vae, x = conditional_linear_vae(), images(4)
    for label in range(3):
        alone = model_of_class(vae, label)
        found = MEASURES[name](vae, split(vae, x, torch.full((4,), label)))
        torch.testing.assert_close(found, MEASURES[name](alone, split(alone, x)))


def test_each_class_has_its_row_and_each_column_its_noise():
    vae = conditional_linear_vae()
    with torch.no_grad():
        vae.decoder.class_bias.weight.zero_()
        vae.encoder.class_bias.weight.zero_()
    rows = class_rows(vae.float(), 4, 3, 0).view(3, 4, -1)
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0, 0], rows[0, 1])
