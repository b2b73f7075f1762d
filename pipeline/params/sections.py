"""The sections of params.yaml: each value's meaning, type and range, and the rules within a section."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Device = Literal["auto", "cpu", "cuda"]
Positive = Annotated[int, Field(ge=1, le=10**9)]
Count = Annotated[int, Field(ge=0, le=10**9)]
Units = Annotated[int, Field(ge=1, le=2**16)]
ImageSide = Annotated[int, Field(ge=1, le=16384)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class PrepareParams(Section):
    """Which images, and how they become arrays."""

    source: Literal[
        "mnist-5k", "mnist", "fashion-mnist", "kmnist", "emnist", "cifar10", "svhn", "celeba", "images", "array"
    ]
    """A set by name, or `images` (a folder) or `array` (a .npy or .npz file) at `path`."""
    root: Annotated[str, Field(min_length=1)]
    """Where torchvision's sets lie, or are downloaded to. A relative path starts at the repository's root."""
    path: Annotated[str, Field(min_length=1)]
    """The folder of images, or the array file. DVC watches it: a changed file prepares anew."""
    image_size: Annotated[tuple[ImageSide, ImageSide], Field(strict=False)] | None
    """[height, width] in pixels to resize to; null keeps the size, which must then be one for all."""
    color: Literal["keep", "grey", "rgb"]
    """How many channels: as found, 1, or 3."""
    on_bad_image: Literal["stop", "skip"]
    """What a file that cannot be decoded does: end the stage, or be counted and listed in meta.json."""
    val_fraction: Fraction
    """Share of the images (of the training split where the set has a test split) for validation."""
    test_fraction: Fraction
    """Share of the images for testing; unused where the set has a test split of its own."""
    train_images: Positive | None
    """At most so many images for training, the first of the training split in the source's order, to see what more data
    is worth; null takes all."""
    held_out_labels: Annotated[tuple[str | int, ...], Field(strict=False)]
    """Classes of a labelled source, by name (or by place, from 0, where no name is a number), that go to none of the
    splits but to the array `held_out`: strange images of a known kind, to measure the scorer with."""
    seed: Seed
    """Seeds the hash of an image's bytes that draws its split."""

    @model_validator(mode="after")
    def _leave_something_to_train_on(self) -> "PrepareParams":
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"prepare.val_fraction + prepare.test_fraction is {self.val_fraction + self.test_fraction:g}; "
                "expected less than 1"
            )
        return self

    @model_validator(mode="after")
    def _hold_out_each_class_once(self) -> "PrepareParams":
        labels = [*self.held_out_labels]
        if len({*map(str, labels)}) < len(labels):
            raise ValueError(f"prepare.held_out_labels is {labels}; expected each class once")
        return self


class ModelParams(Section):
    """What the model is."""

    network: Literal["mlp", "conv", "ladder"]
    """`mlp`: fully connected. `conv`: strided convolutions, and resize + convolution back. `ladder`: z in
    groups, each drawn under those before it, in the prior as in the posterior, with layers of `group_network`."""
    hidden: Annotated[tuple[Units, ...], Field(strict=False)]
    """mlp: units of each hidden layer. conv: channels of each stage; each stage halves the image. ladder: units of the
    layers between image and groups, and again between one group and the next; where these are convolutions, channels of
    each stage."""
    activation: Literal["tanh", "relu", "silu", "gated"]
    """The non-linearity after each hidden layer or stage; `gated`: a * sigmoid(b), with a and b from twice the weights
    (Tomczak and Welling 2018)."""
    normalization: Literal["none", "layer"]
    """`layer`: each example's units (channels and pixels of a stage) are normalised before the non-linearity."""
    residual_blocks: Annotated[int, Field(ge=0, le=100)]
    """Of conv: at each stage, so many blocks of two convolutions beside which the input passes unchanged."""
    latent_dim: Units
    """Dimensions of z; of a ladder, those of all groups together."""
    latent_groups: Units
    """Of a ladder: into how many groups z is split."""
    group_network: Literal["dense", "conv"]
    """Of a ladder: `dense`: groups of one size between fully connected layers; `conv`: between convolutions, as many
    groups at each stage and as many latents at each place of a stage's planes, for larger images."""
    likelihood: Literal["bernoulli", "continuous_bernoulli", "gaussian", "discretized_logistic", "logistic_mixture"]
    """p(x|z) of a pixel: binary, real in [0, 1], real, or one of 256 levels (the last two)."""
    sigma: Annotated[float, Field(ge=1e-3, le=1e3)] | Literal["learned", "optimal", "per_pixel"]
    """The Gaussian's standard deviation, in units of the pixel range; `learned`: one, shared by all pixels; `optimal`:
    of each batch the one that fits it best, and for measurements that of the training images; `per_pixel`: the decoder
    gives each pixel's, and its means pass a sigmoid (Kingma and Welling, appendix C.2)."""
    likelihood_components: Annotated[int, Field(ge=1, le=100)]
    """Of the logistic mixture: how many logistics share a pixel."""
    prior: Literal["standard", "mixture", "vamp", "per_class", "flow"]
    """p(z): N(0, I), a learned mixture of Gaussians, the mean of q(z|u) over learned pseudo-inputs u (VampPrior), a
    Gaussian for each class of a conditional model (`per_class`), or noise that coupling layers move (RealNVP)."""
    prior_components: Annotated[int, Field(ge=1, le=10_000)]
    """Gaussians of the mixture, or pseudo-inputs of vamp."""
    posterior: Literal["diagonal", "iaf", "coupling"]
    """q(z|x): a Gaussian with independent dimensions, or one that a flow moves: inverse autoregressive layers (Kingma
    et al. 2016), or coupling layers."""
    flow_layers: Annotated[int, Field(ge=1, le=100)]
    """Layers of each flow there is, in the prior and in the posterior."""
    flow_hidden: Annotated[tuple[Units, ...], Field(strict=False, min_length=1)]
    """Units of each hidden layer of a flow layer's network; a posterior's flow hears so many numbers from the encoder
    as the first has units."""
    condition: Literal["none", "label"]
    """`label`: encoder and decoder see the class of the image, p(x|z, y), and samples are drawn of a class."""

    @model_validator(mode="after")
    def _flows_fit(self) -> "ModelParams":
        flows = {"prior": self.prior == "flow", "posterior": self.posterior != "diagonal"}
        for name, is_flow in flows.items():
            if is_flow and self.latent_dim < 2:
                raise ValueError(
                    f"model.latent_dim is {self.latent_dim} while model.{name} is {getattr(self, name)!r}, which moves "
                    f"dimensions by one another; expected model.latent_dim >= 2, or model.{name}: "
                    f"{'standard' if name == 'prior' else 'diagonal'}"
                )
        if self.prior == "vamp" and self.posterior != "diagonal":
            raise ValueError(
                f"model.posterior is {self.posterior!r} while model.prior is 'vamp', a mean of Gaussian posteriors; "
                "expected model.posterior: diagonal, or model.prior: flow or mixture"
            )
        return self


class TrainParams(Section):
    """How the model is trained."""

    objective: Literal["elbo", "stl", "iwae", "dreg", "tc", "wake_sleep", "autoencoder"]
    """`stl`: the ELBO with a gradient of less noise (Roeder et al. 2017). `iwae`: the bound of k samples (Burda et al.
    2015). `dreg`: that with a gradient of less noise (Tucker et al. 2018). `tc`: beta weighs the total correlation of
    q(z) alone (Chen et al. 2018). `wake_sleep`: the decoder learns from images, the encoder from the model's dreams
    (Hinton et al. 1995). `autoencoder`: no noise and no KL, to see what the variational part changes."""
    importance_samples: Annotated[int, Field(ge=1, le=1000)]
    """k of iwae and dreg; each costs as much as an image more in the batch."""
    free_bits: Annotated[float, Field(ge=0, le=1000)]
    """Of elbo: nats that each latent dimension may carry, on average over the batch, without being pushed to less."""
    sampled_kl: bool
    """Of elbo: the KL is log q - log p of the z that recon is taken at, also where it has a closed form."""
    beta: Annotated[float, Field(ge=0, le=1e6)]
    """Weight of the KL in the objective, or of tc's total correlation. What is reported always has beta = 1."""
    warmup_epochs: Count
    """Epochs over which beta rises linearly from 0; in a training of no more epochs it never gets to its value."""
    binarize: Literal["none", "static", "dynamic"]
    """Pixels as they are; drawn once as 0 or 1 with the grey value as probability; or drawn at every step."""
    epochs: Positive
    """Passes over the training split, at most: see early_stopping_epochs."""
    global_batch_size: Positive
    """Images per gradient step, over all devices together."""
    optimizer: Literal["adam", "adagrad"]
    """Adam (Kingma and Ba 2014), or Adagrad (Duchi et al. 2011), whose steps shrink and which wants a higher learning
    rate: 0.01 to 0.1."""
    learning_rate: Annotated[float, Field(gt=0, le=1e9)]
    """The optimizer's step size, at the first step."""
    schedule: Literal["constant", "cosine"]
    """The learning rate over the run; `cosine` falls to 0 at the last step."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    """Decay of the exponential moving average of the weights that is validated and saved; 0 turns it off."""
    early_stopping_epochs: Positive | None
    """Stop after so many epochs without a better validation score, those of the warm-up not counted; null never stops
    early."""
    keep_epoch: Literal["best", "last"]
    """Which epoch's weights are saved: the best by the validation score, of those after the warm-up where there are
    any, or the last whatever its score."""
    weight_prior_precision: Annotated[float, Field(ge=0, le=1e6)]
    """Of a prior N(0, I / precision) over the weights of p(z) and p(x|z), whose log density stands once beside the sum
    over all training images: a weight decay. With 1 training is for the maximum a posteriori of Kingma and Welling
    (2013), with 0 for that of the likelihood alone."""
    max_gradient_norm: Annotated[float, Field(gt=0)] | None
    """A longer gradient is scaled down to this length; null never is."""
    on_nonfinite: Literal["stop", "rollback"]
    """At a loss or gradient that is not finite: end, or go back to the end of the last epoch (or to the start) with
    half the learning rate, five times at most."""
    checkpoint_minutes: Annotated[float, Field(gt=0)]
    """How much work a killed training may lose; it goes on from its last checkpoint."""
    precision: Literal["auto", "fp32", "bf16"]
    """Of the networks' matrix products; weights, densities and bounds are fp32 in either. `auto` is bf16 where the
    processor multiplies it in hardware."""
    compile: Literal["auto", "always", "never"]
    """Whether torch compiles the training step; `auto`: where the training is long enough to win the wait back. A GPU
    captures the step as one CUDA graph in any case."""
    device: Device
    """Where train and evaluate compute; `auto` is CUDA where there is a device, else the CPU."""
    devices: Positive
    """How many devices of each machine train together, one process each; on the CPU, how many processes."""
    nodes: Positive
    """How many machines train together: docs/scaling.md."""
    seed: Seed
    """Seeds the weights, the order of the images and all noise."""

    @property
    def whole_batch(self) -> str | None:
        """What of the loss is that of a whole batch, so that ranks with a part each would not add up to it."""
        if self.objective == "tc":
            return "train.objective is 'tc', whose total correlation is that of a whole batch"
        if self.free_bits > 0:
            return f"train.free_bits is {self.free_bits}, held against each dimension's KL of a whole batch"
        return None


class EvaluateParams(Section):
    """What is measured on the test split."""

    importance_samples: Annotated[int, Field(ge=1, le=10**6)]
    """K of the importance-weighted bound."""
    batch_log_weights: Positive
    """How many log-weights are held at once, 16 times as many on a GPU, and how many chains of annealing move at once;
    on the CPU fewer of large images. Bounds the memory, changes the result by rounding only."""
    amortisation_images: Count
    """Test images for which the best q of the family is looked for, to see what the encoder loses; 0 leaves it out."""
    ais_images: Count
    """Test images whose likelihood is estimated by annealed importance sampling too; 0 leaves it out."""
    ais_steps: Annotated[int, Field(ge=1, le=10**6)]
    """Densities through which a chain passes from the prior to the posterior; each costs ten passes, there and back."""
    ais_chains: Annotated[int, Field(ge=1, le=10**6)]
    """Chains for each of those images."""
    ais_schedule: Literal["linear", "sigmoid"]
    """How these densities follow one another: in equal steps, or in small ones at both ends."""
    quality_images: Count
    """How many test images, at most, as many samples are held against: KID, FID, precision, recall, density, coverage,
    memorisation. 0 judges no samples."""
    inception_weights: Annotated[str, Field(min_length=1)] | None
    """A file with the weights of torchvision's Inception v3 (.pth or .safetensors): distances are then also told over
    its features. It is never downloaded, and DVC does not watch it. A relative path starts at the repository's root."""
    aggregate_components: Annotated[int, Field(ge=0, le=10_000)]
    """Gaussians of the aggregate density, a mixture fitted to the training codes, or of each class's where the prior is
    per_class: evaluate judges samples from it too, and export.sample_from: aggregate puts it into the sampler. 0 fits
    none."""
    seed: Seed
    """Seeds the test split's binarisation, the importance samples and the samples in the figures."""


class HealthParams(Section):
    """Limits that a healthy model keeps: evaluate writes the verdict, export refuses what misses one; null is none."""

    min_active_share: Annotated[float, Field(ge=0, le=1)] | None
    """Of the latent dimensions, those whose posterior mean moves with the image (its variance is above 0.01 of the
    prior's)."""
    max_train_test_gap: Annotated[float, Field(ge=0)] | None
    """What test images cost more than training images, as a share of the nats of the test images' stored values."""
    max_bound_drift: Annotated[float, Field(ge=0)] | None
    """By how many nats the importance bound still moves from K/2 samples to K."""
    max_prior_gap: Annotated[float, Field(ge=0)] | None
    """How far the aggregate posterior is from the prior, as a share of the KL."""
    max_copied_share: Annotated[float, Field(ge=0, le=1)] | None
    """Of the samples, those that copy a training image, beyond what test images do."""


class ExportParams(Section):
    """What the ONNX files must satisfy, and what makes a model the champion of its registered name."""

    sample_from: Literal["prior", "aggregate"]
    """What the sampler draws z from: the model's prior, or the aggregate density of evaluate.aggregate_components."""
    max_parity_error: Annotated[float, Field(gt=0)]
    """Largest difference between onnxruntime and torch that is accepted: absolute, but of scores relative."""
    score_samples: Annotated[int, Field(ge=1, le=1024)]
    """Samples of z that one score is averaged over; they are drawn once and stand in scorer.onnx."""
    detection_images: Annotated[int, Field(ge=2)]
    """Images of each kind (strange or not), at most, on which the scorer is measured as a detector of strange ones."""
    min_speedup: Annotated[float, Field(gt=0)] | None
    """int8 (for the CPU) and fp16 (for GPUs) of sampler and decoder are written only where a call takes so many times
    less than in float32, on the exporting machine, of 64 images and of 512; null makes and measures none."""
    max_quality_loss: Annotated[float, Field(ge=0)]
    """What such a variant may lose of the importance-weighted bound on log p(x), in nats per test image (of a plain
    auto-encoder, of log p(x|z) at z = mu)."""
    onnxruntime_web: Annotated[str, Field(min_length=1)] | None
    """dist/ of the npm package onnxruntime-web; a relative path starts at the repository's root. The explorer that is
    logged takes its files along where the folder is there; otherwise, or for null, it says which ones it lacks."""
    registered_model: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None
    """The name in MLflow's registry under which each export is a version; null registers nothing."""
    champion_metric: Literal["nll_iw", "elbo", "bits_per_dim"]
    """Of the test split; a new version must be better than the champion by it to take its place."""
    allow_unhealthy: bool
    """Whether a model that misses a limit of `health` is exported all the same; it becomes no champion."""
    max_nll: float | None
    """Gate of the champion: the importance-weighted bound on -log p(x), in nats per image; null asks nothing."""
    max_latency_ms: Annotated[float, Field(gt=0)] | None
    """Gate of the champion: median milliseconds of 64 images from the sampler, on the exporting machine; or null."""
