import math

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.graphs import parity
from pipeline.graphs.parity import check_parity, measure_parity
from pipeline.vae.model import VAE


def images_for(exported, n=5):
    channels, height, width = exported.metadata.image_shape
    return np.random.default_rng(0).integers(0, 256, (n, height, width, channels), dtype=np.uint8)


def test_the_files_compute_what_torch_does(exported):
    errors = measure_parity(exported.files, exported.vae, images_for(exported))
    assert set(errors) == {
        "decoder_max_abs_error",
        "encoder_max_abs_error",
        "sampler_z_max_abs_error",
        "sampler_max_grey_levels",
        "sampler_split_max_grey_levels",
        "scorer_score_max_rel_error",
        "scorer_error_max_rel_error",
    }
    check_parity(errors, 1e-5)


def test_files_of_another_model_are_found_out(mlp):
    torch.manual_seed(1)
    errors = measure_parity(mlp.files, VAE(mlp.vae.config).eval(), images_for(mlp))
    assert errors["decoder_max_abs_error"] > 0.01
    assert errors["encoder_max_abs_error"] > 0.01
    assert errors["scorer_score_max_rel_error"] > 0.01
    assert errors["scorer_error_max_rel_error"] > 0.01
    assert errors["sampler_max_grey_levels"] > 1
    with pytest.raises(UserError, match=r"decoder_max_abs_error is .*; expected at most 0.0001 \(params.yaml: export"):
        check_parity(errors, 1e-4)


def test_one_nan_fails_the_whole(mlp):
    broken = VAE(mlp.vae.config).eval()
    torch.nn.init.constant_(broken.decoder[0].bias, math.nan)
    errors = measure_parity(mlp.files, broken, images_for(mlp))
    assert math.isnan(errors["decoder_max_abs_error"])
    assert math.isnan(errors["sampler_max_grey_levels"])
    with pytest.raises(UserError, match="decoder_max_abs_error is nan"):
        check_parity(errors, 1.0)


def test_one_grey_level_is_allowed_and_two_are_not():
    check_parity({"sampler_max_grey_levels": 1.0}, 1e-9)
    with pytest.raises(UserError, match="sampler_max_grey_levels is 2; expected at most 1"):
        check_parity({"sampler_max_grey_levels": 2.0}, 10.0)


def test_a_nan_is_the_worst_of_errors():
    assert math.isnan(parity._worst([0.5, math.nan, 0.1]))
