"""Priors by their names in params.yaml."""

from pipeline.errors import UserError
from pipeline.vae.flows import FlowSize
from pipeline.vae.priors.base import Prior
from pipeline.vae.priors.flow import FlowPrior
from pipeline.vae.priors.mixtures import LearnedMixture
from pipeline.vae.priors.normal import PerClass, StandardNormal
from pipeline.vae.priors.vamp import Encode, VampPrior

PRIORS = ("standard", "mixture", "vamp", "per_class", "flow")


def make_prior(
    name: str,
    latent_dim: int,
    components: int,
    image_shape: tuple[int, int, int],
    encode: Encode,
    classes: int = 0,
    *,
    flow: FlowSize,
) -> Prior:
    """Build a prior by its name in params.yaml.

    `components` are those of mixture and vamp, `classes` those of a conditional model, `flow` is the size of a flow.

    Raises:
        UserError: there is no such prior, or no class for it.
    """
    match name:
        case "standard":
            return StandardNormal(latent_dim)
        case "mixture":
            return LearnedMixture(latent_dim, components)
        case "vamp":
            return VampPrior(latent_dim, components, image_shape, encode, classes)
        case "per_class":
            if not classes:
                raise UserError("model.prior is 'per_class' without classes; expected model.condition: label")
            return PerClass(latent_dim, classes)
        case "flow":
            return FlowPrior(latent_dim, flow)
    raise UserError(f"model.prior is {name!r}; expected one of {', '.join(PRIORS)}")
