"""Real digits, 8x8, as the prepare stage leaves them, and params to train on them in no time."""

import numpy as np
from sklearn.datasets import load_digits

from pipeline.dataset.writer import dataset_writer
from pipeline.files import write_json

TINY = {
    "prepare.source": "mnist-5k",
    "model.network": "mlp",
    "model.hidden": [16],
    "model.latent_dim": 3,
    "model.likelihood": "bernoulli",
    "train.binarize": "dynamic",
    "train.warmup_epochs": 0,
    "train.epochs": 2,
    "train.global_batch_size": 50,
    "train.learning_rate": 0.003,
    "train.schedule": "constant",
    "train.ema_decay": 0.0,
    "train.device": "cpu",
    "train.precision": "fp32",
    "evaluate.importance_samples": 5,
    "evaluate.batch_log_weights": 100,
    "evaluate.amortisation_images": 0,
}


def prepare_digits(folder, counts, size=8, classes=None, held_out=False):
    """Write a prepared folder with so many digits per split, cut to `size` pixels; labels where `classes` are named."""
    images = (load_digits().images * 255 / 16).round().astype(np.uint8)[:, None, :size, :size]
    labels = None if classes is None else load_digits().target.astype(np.int64)
    with dataset_writer(folder, (1, size, size), classes, held_out=held_out) as writer:
        for split, rows in counts.items():
            rows = range(rows) if isinstance(rows, int) else rows
            writer.append(split, images[rows], None if labels is None else labels[rows])
            images, labels = np.delete(images, rows, 0), None if labels is None else np.delete(labels, rows)
        write_json(folder / "meta.json", {"source": "digits", **writer.finish()})
    return folder
