"""The card's section on variants: what each gains and loses, and why one is missing."""

from collections.abc import Sequence

from pipeline.graphs.variants import bound, quality
from pipeline.graphs.variants.choice import Outcome
from pipeline.graphs.variants.quality import Estimate
from pipeline.graphs.variants.speed import DECIDING_SIZES, SIZES
from pipeline.quality.random_conv import EXTRACTOR

TITLE = "Variants"

_SECTION = """\
The sampler and the decoder in smaller arithmetic: the same seeds, the same z to the bit, nearly the same pixels.

| | {speeds} | PSNR, dB | loss, nats | KID x 1000 | to float32 |
| --- | {lines} | --- | --- | --- | --- |
{rows}

{verdicts}

- Speed is that of the sampler against float32: the ratio of the medians of calls that took turns in one process, on
  the machine that exported. The lesser of those at {deciding} images decides.
- PSNR is that of the pixel means against float32's, over {samples:,} draws from the prior.
- Loss is float32's {loss} minus the variant's, with the same z, the mean over
  {images:,} test images and its standard error.
- KID is the kernel inception distance (arXiv 1801.01401) of {samples:,} samples from the test images, by features of
  random convolutions ({extractor}): good to compare these rows, not with Inception's. float32's is
  {kid_float32}. The last column is the distance between the variant's samples and float32's.
- int8 multiplies bytes by weights of seven bits. Its ranges are constants, measured on latents of validation images and
  on as many from the prior; what lies beyond them, as at high temperatures, is cut off.{fp16}"""

_FP16_ON_CPU = """
- fp16 was run on the CPU, which computes in float32 between rounded weights: its loss on a GPU was not measured."""


def variants_section(outcomes: Sequence[Outcome], objective: str) -> str:
    """The section as Markdown; nothing where no variants were asked for."""
    if not outcomes:
        return ""
    kids = [outcome.quality.kid_float32 for outcome in outcomes if outcome.quality]
    by_bound = f"importance-weighted bound on log p(x) (K = {bound.SAMPLES})"
    cpu_alone = any(o.variant == "fp16" and o.speedups is None for o in outcomes)
    return _SECTION.format(
        speeds=" | ".join(f"speed at {size}" for size in SIZES),
        lines=" | ".join("---" for _ in SIZES),
        rows="\n".join(map(_row, outcomes)),
        verdicts="\n\n".join(map(_verdict, outcomes)),
        deciding=" and ".join(map(str, DECIDING_SIZES)),
        samples=quality.SAMPLES,
        images=next((o.quality.images for o in outcomes if o.quality), 0),
        loss="log p(x|z) at z = mu" if objective == "autoencoder" else by_bound,
        extractor=f"`{EXTRACTOR}`",
        kid_float32=_thousandths(kids[0] if kids else None),
        fp16=_FP16_ON_CPU if cpu_alone else "",
    )


def _row(outcome: Outcome) -> str:
    speeds = ["-"] * len(SIZES) if outcome.speedups is None else [f"{outcome.speedups[size]:.2f}" for size in SIZES]
    measured = ["-"] * 4
    if found := outcome.quality:
        loss = f"{found.loss.value:.4f} ± {found.loss.stderr:.4f}"
        measured = [f"{found.psnr:.1f}", loss, _thousandths(found.kid), f"{1000 * found.kid_between:.2g}"]
    return f"| {' | '.join([outcome.variant, *speeds, *measured])} |"


def _verdict(outcome: Outcome) -> str:
    if not outcome.files:
        return f"**{outcome.variant}** is not written: {outcome.refusal}."
    names = " and ".join(f"`{name}`" for name in outcome.files)
    return f'**{outcome.variant}**: {names}; `Sampler(folder, variant="{outcome.variant}")` opens them.'


def _thousandths(kid: Estimate | None) -> str:
    return "-" if kid is None else f"{1000 * kid.value:.1f} ± {1000 * kid.stderr:.1f}"
