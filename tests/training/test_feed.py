import sys

import pytest
import torch
from little_memory import train_in_128_megabytes
from sparse_set import make_sparse_set

from pipeline.dataset.store import memory_bytes
from pipeline.training import feed as feed_module
from pipeline.training.feed import Feed, SplitLabels
from pipeline.training.ranks import Ranks


def feed(make_trainer, ranks=Ranks(), **changes):  # noqa: B008
    trainer = make_trainer(**changes)
    return Feed(trainer.feed.train, trainer.feed.val, trainer.params, 4, torch.device("cpu"), ranks)


def joined(batches):
    return [torch.cat(parts) for parts in zip(*batches, strict=True) if parts[0] is not None]


def labelled(trainer, ranks):
    labels = SplitLabels(torch.arange(600) * 7 % 10, torch.arange(200) * 3 % 10)
    splits = trainer.feed.train, trainer.feed.val
    return labels, Feed(*splits, trainer.params, 4, torch.device("cpu"), ranks, labels)


@pytest.mark.parametrize("ranks", [Ranks(), Ranks(1, 2)])
def test_every_example_comes_with_its_class(make_trainer, ranks):
    labels, made = labelled(make_trainer(), ranks)
    for batches, of_split in ((made.steps(2, first=3), labels.train), (made.validation(), labels.val)):
        for batch in batches:
            assert torch.equal(batch.label, of_split[batch.examples])
    (batch,) = made.batches_of(2, torch.tensor([5, 3]))
    assert batch.label.tolist() == [5, 1]


def test_without_classes_no_batch_has_any(make_trainer):
    made = feed(make_trainer)
    assert all(batch.label is None for batches in (made.steps(1), made.validation()) for batch in batches)


def test_where_noise_is_more_than_pixels_less_is_made_ready_at_once(make_trainer, monkeypatch):
    monkeypatch.setitem(feed_module._BLOCK_VALUES, "cpu", 64 * 64 * 4)
    few, many = feed(make_trainer), feed(make_trainer, objective="iwae", importance_samples=100)
    assert few._block == 4 * 64  # of 64 pixels
    assert many._block == 64 * 64 * 4 // (100 * 4)
    assert torch.equal(joined(few.steps(1))[0], joined(many.steps(1))[0])


def test_an_epoch_shows_every_example_once(make_trainer):
    batches = list(feed(make_trainer).steps(1))
    assert [len(batch.examples) for batch in batches] == [64] * 9 + [24]
    assert torch.equal(joined(batches)[0].sort().values, torch.arange(600))


def test_what_an_example_looks_like_does_not_depend_on_the_batch_size(make_trainer):
    seen = []
    for size in (7, 64, 600):
        examples, x, eps = joined(feed(make_trainer, global_batch_size=size).steps(3))
        order = examples.argsort()
        seen.append((x[order], eps[order]))
    for x, eps in seen[1:]:
        assert torch.equal(x, seen[0][0])
        assert torch.equal(eps, seen[0][1])


@pytest.mark.parametrize("objective", ["elbo", "iwae", "wake_sleep"])
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_what_one_process_would_see(make_trainer, world_size, objective):
    alone = list(feed(make_trainer, objective=objective).steps(2))
    ranks = [
        list(feed(make_trainer, Ranks(rank, world_size), objective=objective).steps(2)) for rank in range(world_size)
    ]
    for whole, parts in zip(alone, zip(*ranks, strict=True), strict=True):
        for together, shared in zip(joined([whole]), joined(parts), strict=True):
            assert torch.equal(together, shared)


def test_validation_is_shared_too(make_trainer):
    alone = joined(feed(make_trainer).validation())
    parts = [joined(feed(make_trainer, Ranks(rank, 2)).validation()) for rank in range(2)]
    assert [len(examples) for examples, _, _ in parts] == [100, 100]
    order = torch.cat([examples for examples, _, _ in parts]).argsort()
    assert torch.equal(torch.cat([eps for _, _, eps in parts])[order], alone[2])


def test_an_epoch_can_be_entered_at_any_step(make_trainer):
    whole = list(feed(make_trainer).steps(1))
    for first in (1, 5, 9):
        for expected, found in zip(whole[first:], feed(make_trainer).steps(1, first), strict=True):
            assert torch.equal(expected.x, found.x)
            assert torch.equal(expected.eps, found.eps)


def test_every_epoch_has_noise_of_its_own(make_trainer):
    eps = [joined(feed(make_trainer).steps(epoch))[2] for epoch in (1, 2)]
    assert not torch.isin(eps[0], eps[1]).any()


def pixels_by_example(made, epoch):
    examples, x, _ = joined(made.steps(epoch))
    return x[examples.argsort()]


def test_dynamic_binarisation_draws_every_image_anew_in_every_epoch_and_static_never(make_trainer):
    first, second, again = (pixels_by_example(feed(make_trainer, binarize="dynamic"), epoch) for epoch in (1, 2, 1))
    assert (first != second).flatten(1).any(1).all()
    assert torch.equal(first, again)
    assert torch.equal(*(pixels_by_example(feed(make_trainer, binarize="static"), epoch) for epoch in (1, 2)))


def grey_feed(make_trainer, **changes):
    """Both splits are the same images, of which every pixel is as often drawn as not."""
    grey = torch.full((600, 1, 8, 8), 128, dtype=torch.uint8)
    return Feed(grey, grey, make_trainer(**changes).params, 4, torch.device("cpu"), Ranks())


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_noise_of_z_tells_nothing_of_the_pixels_that_were_drawn(make_trainer, split):
    made = grey_feed(make_trainer, binarize="dynamic")
    _, x, eps = joined(made.steps(1) if split == "train" else made.validation())
    together = torch.corrcoef(torch.cat([x.flatten(1), eps, eps.square()], dim=1).T)
    assert together[:64, 64:].abs().max() < 5 / 600**0.5


def test_the_noise_of_one_split_is_not_that_of_the_other(make_trainer):
    made = grey_feed(make_trainer, binarize="static")
    train, (_, x, eps) = joined(made.steps(1)), joined(made.validation())
    assert (pixels_by_example(made, 1) == x).float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert not torch.isin(eps, train[2]).any()


def test_a_last_step_with_fewer_examples_than_ranks_leaves_some_with_none(make_trainer):
    feeds = [feed(make_trainer, Ranks(rank, 2), global_batch_size=599) for rank in (0, 1)]
    assert [len(list(each.steps(1))[-1].examples) for each in feeds] == [0, 1]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits what a process has of its own")
def test_an_epoch_needs_no_memory_for_the_set(tmp_path):
    """A process that may take 128 MB trains on a set that is larger than the machine's memory."""
    make_sparse_set(tmp_path, (1, 8, 8), 2 * memory_bytes() // 64)
    assert train_in_128_megabytes(tmp_path) == 0


def test_a_small_validation_split_is_made_ready_once_and_a_large_one_every_time(make_trainer, monkeypatch):
    small = feed(make_trainer)
    assert small.validation() is small.validation()
    monkeypatch.setattr("pipeline.training.feed._KEPT_VALUES", 100)
    large = feed(make_trainer)
    first, second = (joined(large.validation()) for _ in range(2))
    for expected, again, kept in zip(first, second, joined(small.validation()), strict=True):
        assert torch.equal(expected, again)
        assert torch.equal(expected, kept)
