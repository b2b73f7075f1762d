"""The card's section on the scorer as a detector of strange images: what was measured, on what, and what it is not."""

from collections.abc import Sequence

from pipeline.errors import shown
from pipeline.graphs.defects import CONTRAST
from pipeline.graphs.detection import Auroc, Detection

TITLE = "Measured as a detector of strange images"

_SECTION = """\
By scorer.onnx itself, on images that the model has not seen. AUROC is the probability that a strange image stands above
a normal one: 1 tells them all apart, 0.5 is the toss of a coin. ± is one standard error (DeLong et al. 1988).

| strange images | normal images | read from | AUROC |
| --- | --- | --- | --- |
{rows}

A drawn defect is one opaque scratch, spot or patch of random place, size and level, {contrast} grey levels or more from
the mean of what it covers; no image stands on both sides. `error` is read by its largest mean over {window}x{window}
pixels. The middle of that window lay on the defect in {located:.0f} ± {located_stderr:.0f} % of the images; a pixel
taken blindly would in {covered:.1f} %.
{below}{classes}
These are the numbers of these strange images alone. Another held-out label, or a defect of another kind, gives another
number: measure on your own. The section on scores says what no such number can."""

_BELOW = """
An AUROC below 0.5: the model finds the held-out images *less* strange than images of the kind that it was trained on.
Its likelihood is high for what is simple, whether or not it has seen it.
"""


_CLASSES = """
The scorer was told each test image's class. Images of held-out labels have none that it knows: they, and the test
images that they are held against, got the least of their scores over all classes.
"""


def detection_section(detection: Detection, held_out_labels: Sequence[str], conditional: bool = False) -> str:
    """The section as Markdown; `held_out_labels` names the classes that were held out, if any."""
    held_out = detection.held_out
    return _SECTION.format(
        rows="\n".join(_rows(detection, held_out_labels)),
        contrast=CONTRAST,
        window=detection.window,
        located=100 * detection.located,
        located_stderr=100 * detection.located_stderr,
        covered=100 * detection.covered,
        below=_BELOW if held_out is not None and held_out.value < 0.5 else "",
        classes=_CLASSES if conditional else "",
    )


def _rows(detection: Detection, held_out_labels: Sequence[str]) -> list[str]:
    defects = ("test images with a drawn defect", "test images without one")
    rows = [
        _row(*defects, "`score`", detection.defects),
        _row(*defects, "`error`", detection.defects_error_map),
    ]
    if detection.held_out is None:
        return rows
    names = ", ".join(map(shown, held_out_labels)).replace("|", "\\|")
    return [_row(f"images of held-out labels: {names}", "test images", "`score`", detection.held_out), *rows]


def _row(strange: str, normal: str, source: str, auroc: Auroc) -> str:
    measured = f"{auroc.value:.3f} ± {auroc.stderr:.3f}"
    return f"| {auroc.strange:,} {strange} | {auroc.normal:,} {normal} | {source} | {measured} |"
