"""A prepared set whose training split is of any size and takes no room on the disk."""

import json
import math

import numpy as np

from pipeline.dataset.writer import dataset_writer


def make_sparse_set(folder, image_shape, count):
    """`count` black images to train on, and two each to validate and to test."""
    with dataset_writer(folder, image_shape, None) as writer:
        for split in ("train", "val", "test"):
            writer.append(split, np.full((2, *image_shape), 7, np.uint8), None)
        meta = writer.finish()
    with open(folder / "train.npy", "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, *image_shape)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + count * math.prod(image_shape))
    meta["splits"]["train"]["count"] = count
    (folder / "meta.json").write_text(json.dumps(meta))
