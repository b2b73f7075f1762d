"""The importance-weighted bound with the decoder of an ONNX file in place of the model's own."""

import torch
from torch import Tensor

from pipeline.graphs.variants.layers import PARAMETERS, TOGETHER
from pipeline.runtime.labels import LABEL
from pipeline.runtime.sampler import DECODER
from pipeline.runtime.session import Device, open_session
from pipeline.runtime.together import rows_together
from pipeline.vae.bounds import iw_bound
from pipeline.vae.model import VAE
from pipeline.vae.posteriors import repeat, repeated

IMAGES, SAMPLES = 500, 16  # test images, and samples of z for each
_SEED = 0


class DecoderBound:
    """log p(x) from below, by whichever decoder it is given; every decoder gets the same z of the model's encoder.

    Args:
        vae: gives q(z|x), the prior and the likelihood.
        objective: elbo, or autoencoder, of which recon at z = mu takes the place of the bound.
        x: what the model sees of images, float32 [n, C, H, W]; the first 500 are taken.
        label: of a conditional model: their classes, int64 [n].
    """

    @torch.no_grad()
    def __init__(self, vae: VAE, objective: str, x: Tensor, label: Tensor | None = None) -> None:
        self._likelihood, self._x = vae.likelihood, x[:IMAGES]
        label = None if label is None else label[:IMAGES]
        q = vae.posterior(self._x, label)
        self.samples = 1 if objective == "autoencoder" else SAMPLES
        if objective == "autoencoder":
            self._z, self._label, self._log_ratio = q.mu, label, torch.zeros(len(q.mu), 1)
            return
        noise = torch.randn(len(q.mu), SAMPLES, q.mu.shape[1], generator=torch.Generator().manual_seed(_SEED))
        q = q.repeat(SAMPLES)
        draw = q.draw(noise.flatten(0, 1))
        self._z, self._label = draw.z, repeated(label, SAMPLES)  # z is (n * samples, latent_dim)
        log_p = vae.prior.given(self._label).log_prob(draw.z)
        self._log_ratio = (log_p - q.log_prob(draw)).view(-1, SAMPLES)

    @torch.no_grad()
    def of(self, decoder: bytes, device: Device) -> Tensor:
        """The bound of each image in nats, [n], by a decoder with the inner tensor PARAMETERS."""
        run = open_session(decoder, device, name=DECODER).run
        images_together = max(1, rows_together(self._x.shape[1:], TOGETHER) // self.samples)
        bounds = []
        for start in range(0, len(self._x), images_together):
            images = slice(start, start + images_together)
            rows = slice(start * self.samples, (start + images_together) * self.samples)
            asked = {"z": self._z[rows].numpy()} | ({} if self._label is None else {LABEL: self._label[rows].numpy()})
            parameters = torch.from_numpy(run([PARAMETERS], asked)[0])
            recon = self._likelihood.log_prob(repeat(self._x[images], self.samples), parameters).view(-1, self.samples)
            bounds.append(iw_bound(recon + self._log_ratio[images]))
        return torch.cat(bounds)
