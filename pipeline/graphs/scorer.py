"""`scorer.onnx` gets its scale: the scores of the validation images, computed by the very file that will carry them."""

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from pipeline.graphs.labels import Labels, label_input
from pipeline.graphs.onnx_export import finish
from pipeline.runtime.metadata import Metadata
from pipeline.runtime.scores import ScoreScale, images_together
from pipeline.runtime.session import open_session
from pipeline.runtime.together import rows_together

LATENTS_TOGETHER = 512  # decoded at once


def finish_scorer(
    model: onnx.ModelProto,
    metadata: Metadata,
    samples: int,
    validation: NDArray[np.uint8],
    labels: Labels | None = None,
    extra: Mapping[str, str] | None = None,
) -> bytes:
    """Score the validation images, uint8 [n, C, H, W], and write their quantiles into the file's metadata.

    Those of a conditional model are scored as images of their classes, `labels` int64 [n].
    """
    entries = dict(extra or {})
    score = open_session(finish(model, metadata, entries), "cpu", name="scorer.onnx").run
    together = images_together(rows_together(metadata.image_shape, LATENTS_TOGETHER), samples)
    parts = [
        score(["score"], {"images": np.moveaxis(validation[rows], 1, -1), **label_input(labels, rows)})[0]
        for rows in (slice(start, start + together) for start in range(0, len(validation), together))
    ]
    return finish(model, metadata, entries | ScoreScale.of(np.concatenate(parts), samples).to_strings())
