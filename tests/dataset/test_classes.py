import numpy as np
import pytest

from pipeline.dataset.classes import labels_of, renumbered, trained_classes
from pipeline.dataset.store import open_prepared
from pipeline.dataset.writer import dataset_writer
from pipeline.errors import UserError
from pipeline.files import write_json


def with_labels(folder, train, val=(0,), test=(0,), classes=("ant", "bee", "cat")):
    """Prepared images with these labels."""
    with dataset_writer(folder, (1, 2, 2), classes) as writer:
        for split, labels in {"train": train, "val": val, "test": test}.items():
            writer.append(split, np.zeros((len(labels), 1, 2, 2), np.uint8), classes and np.array(labels, np.int64))
        write_json(folder / "meta.json", writer.finish())
    return open_prepared(folder)


def test_a_model_knows_the_classes_that_training_images_have(tmp_path):
    data = with_labels(tmp_path, train=[2, 0, 2, 0], val=[0, 2], test=[2, 2])
    assert trained_classes(data) == ("ant", "cat")
    assert labels_of(data, "train", ("ant", "cat")).tolist() == [1, 0, 1, 0]
    assert labels_of(data, "val", ("ant", "cat")).tolist() == [0, 1]


def test_labels_are_those_of_the_data_where_every_class_is_known(tmp_path):
    data = with_labels(tmp_path, train=[2, 0, 1, 0])
    assert labels_of(data, "train", ("ant", "bee", "cat")).tolist() == [2, 0, 1, 0]


def test_data_are_renumbered_as_a_model_counts(tmp_path):
    data = with_labels(tmp_path, [2, 0, 2, 0], val=[0, 2], test=[2, 2])
    found = renumbered(data, ("ant", "cat"))
    assert found.test.labels.tolist() == [1, 1]
    assert found.meta["classes"] == ["ant", "cat"]
    assert renumbered(data, ()) is data


def test_without_classes_there_are_no_labels(tmp_path):
    assert labels_of(with_labels(tmp_path, [0, 1]), "train", ()) is None


def test_an_image_of_a_class_that_was_never_trained_on_is_refused(tmp_path):
    data = with_labels(tmp_path, train=[2, 0, 2, 0], val=[0, 2], test=[1, 2])
    with pytest.raises(UserError, match=r"meta.json: test has 1 images of the class 'bee', of which train has none"):
        labels_of(data, "test", ("ant", "cat"))


def test_other_classes_than_those_of_the_checkpoint_are_refused(tmp_path):
    data = with_labels(tmp_path, train=[2, 0, 1, 0])
    with pytest.raises(UserError, match=r"have the classes ant, bee, cat; expected dog, those that the checkpoint"):
        labels_of(data, "test", ("dog",))


def test_images_without_classes_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"meta.json: the images have no classes, which model.condition: label wants"):
        trained_classes(with_labels(tmp_path, [0, 0], classes=None))
