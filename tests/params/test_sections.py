from typing import get_args

import pytest
from changed_params import REAL

from pipeline.checkpoint import BINARIZE
from pipeline.dataset.torchvision_sets import NAMES
from pipeline.params import Params
from pipeline.vae.condition import CONDITIONS
from pipeline.vae.flows import FLOWS
from pipeline.vae.likelihoods.make import LIKELIHOODS
from pipeline.vae.model import GROUP_NETWORKS
from pipeline.vae.networks import ACTIVATIONS, NETWORKS, NORMALIZATIONS
from pipeline.vae.objectives import OBJECTIVES
from pipeline.vae.priors.make import PRIORS

KNOWN = {
    "prepare.source": ("mnist-5k", *NAMES, "images", "array"),
    "model.network": NETWORKS,
    "model.activation": ACTIVATIONS,
    "model.normalization": NORMALIZATIONS,
    "model.group_network": GROUP_NETWORKS,
    "model.likelihood": LIKELIHOODS,
    "model.prior": PRIORS,
    "model.posterior": ("diagonal", *FLOWS),
    "model.condition": CONDITIONS,
    "train.objective": OBJECTIVES,
    "train.binarize": BINARIZE,
}


def test_every_section_and_every_param_is_described():
    undescribed = [
        f"{name}.{field}"
        for name, section in Params.model_fields.items()
        for field, info in section.annotation.model_fields.items()
        if not info.description
    ]
    assert undescribed == []
    assert all(section.annotation.__doc__ for section in Params.model_fields.values())


def test_the_code_holds_no_second_copy_of_a_value():
    sections = [Params, *(section.annotation for section in Params.model_fields.values())]
    assert [
        field for section in sections for field, info in section.model_fields.items() if not info.is_required()
    ] == []


def test_params_stand_in_the_order_in_which_the_code_names_them():
    for name, section in Params.model_fields.items():
        assert list(REAL[name]) == list(section.annotation.model_fields)
    assert list(REAL) == list(Params.model_fields)


@pytest.mark.parametrize("name", KNOWN)
def test_the_names_that_params_may_take_are_those_that_the_code_knows(name):
    section, _, field = name.partition(".")
    accepted = get_args(Params.model_fields[section].annotation.model_fields[field].annotation)
    assert sorted(accepted) == sorted(KNOWN[name])
