"""`vae score` on a folder in which half of the images have a defect."""

import csv

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from pipeline.cli import main
from pipeline.graphs.defects import draw_defects
from pipeline.graphs.detection import measure_auroc


@pytest.fixture
def folder(tmp_path):
    """380 digits that the model has not seen, as they are, and 380 others with a defect."""
    unseen = (load_digits().images[1000:1760] * 255 / 16).round().astype(np.uint8)[..., None]
    damaged, _ = draw_defects(unseen[1::2], seed=0)
    (tmp_path / "images").mkdir()
    for kind, images in (("whole", unseen[::2]), ("damaged", damaged)):
        for number, image in enumerate(images):
            Image.fromarray(image[..., 0]).save(tmp_path / "images" / f"{kind}-{number:03}.png")
    return tmp_path / "images"


def test_scores_tell_defects_from_whole_images_and_the_strangest_stand_first(trained, folder, tmp_path):
    output = tmp_path / "scores.csv"
    with pytest.raises(SystemExit) as ended:
        main(["score", str(folder), "--model", str(trained.folder), "-o", str(output), "--device", "cpu"])
    assert not ended.value.code
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    scores = np.array([float(row["score"]) for row in rows])
    damaged = np.array(["damaged" in row["file"] for row in rows])
    assert len(rows) == 760
    assert (np.diff(scores) <= 0).all()
    auroc = measure_auroc(scores[~damaged], scores[damaged])
    assert auroc.value - 4 * auroc.stderr > 0.5
    assert damaged[:50].mean() > 0.8
