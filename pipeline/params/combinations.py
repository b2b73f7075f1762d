"""Which values go together: each rule says what was found, and what to choose instead.

Every function raises a ValueError, which pydantic hands on to who checks the params.
"""

from pipeline.params.sections import EvaluateParams, ExportParams, ModelParams, TrainParams


def check_combinations(model: ModelParams, train: TrainParams, evaluate: EvaluateParams, export: ExportParams) -> None:
    """Refuse values that are each in range and have no meaning together.

    Raises:
        ValueError: names both params, their values, and what either would have to be.
    """
    _check_likelihood(model, train)
    _check_objective(model, train)
    _check_flow_posterior(model, train)
    _check_condition(model)
    _check_sampling(evaluate, export)
    _check_autoencoder(model, train)
    _check_network(model)
    if model.network == "ladder":
        _check_ladder(model, train)


def _check_likelihood(model: ModelParams, train: TrainParams) -> None:
    if model.likelihood != "bernoulli" and train.binarize != "none":
        raise ValueError(
            f"train.binarize is {train.binarize!r} while model.likelihood is {model.likelihood!r}; "
            "expected train.binarize: none, or model.likelihood: bernoulli"
        )


def _check_objective(model: ModelParams, train: TrainParams) -> None:
    objective = train.objective
    if objective in ("iwae", "dreg") and train.beta != 1:
        raise ValueError(
            f"train.beta is {train.beta} while train.objective is {objective!r}, whose bound has no beta; "
            "expected train.beta: 1, or train.objective: elbo"
        )
    if objective == "wake_sleep":
        _check_wake_sleep(model, train)
    if objective == "dreg" and train.compile == "always":
        raise ValueError(
            "train.compile is 'always' while train.objective is 'dreg', whose gradient cannot be compiled; "
            "expected train.compile: auto or never"
        )
    if objective == "tc" and model.prior != "standard":
        raise ValueError(
            f"model.prior is {model.prior!r} while train.objective is 'tc', which wants one p(z) for all images, of "
            "independent dimensions; expected model.prior: standard, or train.objective: elbo"
        )
    _check_processes(train)
    if train.sampled_kl and (objective != "elbo" or train.free_bits > 0):
        raise ValueError(
            f"train.sampled_kl is true while train.objective is {objective!r} and train.free_bits is "
            f"{train.free_bits}; expected train.sampled_kl: false, or train.objective: elbo without free bits"
        )
    if train.free_bits > 0 and (objective != "elbo" or model.prior not in ("standard", "per_class")):
        raise ValueError(
            f"train.free_bits is {train.free_bits} while train.objective is {objective!r} and model.prior is "
            f"{model.prior!r}; expected train.free_bits: 0, or elbo and standard or per_class, "
            "where dimensions have a KL"
        )


def _check_wake_sleep(model: ModelParams, train: TrainParams) -> None:
    """Its phases have no beta, dream of a standard z, and make each dreamt pixel of one number of noise.

    An optimal sigma is that of the images of a step: the dreams before it would have another.
    """
    expected = {
        "train.beta": (train.beta, (1.0,)),
        "train.warmup_epochs": (train.warmup_epochs, (0,)),
        "model.prior": (model.prior, ("standard",)),
        "model.likelihood": (model.likelihood, ("bernoulli", "gaussian")),
    }
    if model.sigma == "optimal" and model.likelihood == "gaussian":
        raise ValueError(
            "model.sigma is 'optimal' while train.objective is 'wake_sleep', whose dreams are of no step's images; "
            "expected model.sigma: learned, per_pixel or a number, or train.objective: elbo"
        )
    for name, (found, allowed) in expected.items():
        if found not in allowed:
            raise ValueError(
                f"{name} is {found!r} while train.objective is 'wake_sleep'; "
                f"expected {name}: {' or '.join(map(str, allowed))}, or train.objective: elbo"
            )


def _check_processes(train: TrainParams) -> None:
    processes = train.devices * train.nodes
    if processes > 1 and train.whole_batch is not None:
        raise ValueError(
            f"train.devices * train.nodes is {processes} while {train.whole_batch}; expected one process, or "
            "train.objective: elbo without free bits"
        )


def _check_flow_posterior(model: ModelParams, train: TrainParams) -> None:
    """It knows log q(z|x) of its own draws alone, and no KL of a dimension."""
    if model.posterior == "diagonal":
        return
    if train.objective not in ("elbo", "iwae"):
        raise ValueError(
            f"train.objective is {train.objective!r} while model.posterior is {model.posterior!r}; "
            "expected train.objective: elbo or iwae, or model.posterior: diagonal"
        )
    if train.free_bits > 0:
        raise ValueError(
            f"train.free_bits is {train.free_bits} while model.posterior is {model.posterior!r}, whose dimensions "
            "have no KL of their own; expected train.free_bits: 0, or model.posterior: diagonal"
        )


def _check_condition(model: ModelParams) -> None:
    if model.prior == "per_class" and model.condition == "none":
        raise ValueError(
            "model.prior is 'per_class' while model.condition is 'none'; "
            "expected model.condition: label, or model.prior: standard"
        )


def _check_sampling(evaluate: EvaluateParams, export: ExportParams) -> None:
    if export.sample_from == "aggregate" and not evaluate.aggregate_components:
        raise ValueError(
            "export.sample_from is 'aggregate' while evaluate.aggregate_components is 0, which fits no density; "
            "expected evaluate.aggregate_components above 0 (50, say), or export.sample_from: prior"
        )


def _check_autoencoder(model: ModelParams, train: TrainParams) -> None:
    if train.objective == "autoencoder" and model.prior != "standard":
        raise ValueError(
            f"model.prior is {model.prior!r} while train.objective is 'autoencoder', which has no prior; "
            "expected model.prior: standard, or train.objective: elbo"
        )
    if train.objective == "autoencoder" and train.beta != 1:
        raise ValueError(
            f"train.beta is {train.beta} while train.objective is 'autoencoder', which has no KL; "
            "expected train.beta: 1, or train.objective: elbo"
        )


def _check_network(model: ModelParams) -> None:
    if model.network == "conv" and not model.hidden:
        raise ValueError("model.hidden is []; expected at least one stage of channels for model.network: conv")
    if model.residual_blocks and (model.network != "conv" or model.activation == "gated"):
        raise ValueError(
            f"model.residual_blocks is {model.residual_blocks} while model.network is {model.network!r} "
            f"and model.activation is {model.activation!r}; expected model.residual_blocks: 0, or "
            "model.network: conv and model.activation: silu, relu or tanh"
        )


def _check_ladder(model: ModelParams, train: TrainParams) -> None:
    """Its posterior is no diagonal Gaussian, and its prior is standard normal in whitened latents."""
    if not model.hidden:
        raise ValueError("model.hidden is []; expected at least one layer of units for model.network: ladder")
    stages = len(model.hidden)
    if model.group_network == "conv" and model.latent_groups % stages:
        raise ValueError(
            f"model.latent_groups is {model.latent_groups} while model.hidden has {stages} stages; "
            "expected as many groups at each, for model.group_network: conv"
        )
    if model.group_network == "dense" and model.latent_dim % model.latent_groups:
        raise ValueError(
            f"model.latent_dim is {model.latent_dim} while model.latent_groups is {model.latent_groups}; "
            "expected a multiple of it for model.network: ladder"
        )
    expected = {
        "model.prior": (model.prior, ("standard",)),
        "model.posterior": (model.posterior, ("diagonal",)),
        "train.objective": (train.objective, ("elbo", "iwae", "autoencoder")),
    }
    for name, (found, allowed) in expected.items():
        if found not in allowed:
            raise ValueError(
                f"{name} is {found!r} while model.network is 'ladder'; "
                f"expected {name}: {' or '.join(map(str, allowed))}, or model.network: mlp"
            )
