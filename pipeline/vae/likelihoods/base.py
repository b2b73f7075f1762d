"""What every likelihood of images offers, and the grid that stored pixels lie on."""

from torch import Generator, Tensor, nn

from pipeline.vae.densities import sum_over_event

GREY_LEVEL = 1 / 255
"""The step between stored values, in units of the pixel range."""


class Likelihood(nn.Module):
    """p(x|z) of pixels x in [0, 1] under what the decoder gives for z.

    x is [batch, C, ...] and the parameters are [batch, outputs, ...], where the dots are any sizes, the same for both.

    Attributes:
        outputs: how many numbers the decoder gives for each pixel, of all its channels together.
        is_density: whether `log_prob` is one, per unit of the pixel range; else it is a log-probability.
    """

    is_density = False

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def pixel_log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """log p(x_pixel|z) in nats, over all channels of a pixel; -> [batch, ...]."""
        raise NotImplementedError

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """log p(x|z) in nats -> [batch]; the pixels are independent given z."""
        return sum_over_event(self.pixel_log_prob(x, parameters)[:, None])

    def discrete_log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """The log-probability of the stored values, in nats -> [batch].

        Where `log_prob` is a density, this is its integral over each value's bin: it sums to one over the 256 values.
        """
        return self.log_prob(x, parameters)

    def mean(self, parameters: Tensor) -> Tensor:
        """E[x|z], [batch, C, ...]."""
        raise NotImplementedError

    def sample_from(self, parameters: Tensor, eps: Tensor) -> Tensor:
        """The draw of x that standard-normal `eps` makes, both [batch, C, ...]; its distribution is that of `sample`.

        Not every likelihood has it: one number for each pixel and channel must be enough.
        """
        raise NotImplementedError

    def sample(self, parameters: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw x, [batch, C, ...]."""
        raise NotImplementedError
