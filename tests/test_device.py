import pytest
import torch

from pipeline.device import choose_device, describe_device, memory_bounded_by
from pipeline.errors import UserError


@pytest.fixture
def with_two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)


def test_auto_is_a_gpu_where_one_is_and_that_of_the_rank(with_two_gpus):
    assert choose_device("auto", 1) == choose_device("cuda", 1) == torch.device("cuda", 1)
    assert choose_device("cpu", 1) == torch.device("cpu")


def test_a_gpu_multiplies_as_the_cpu_does(with_two_gpus):
    torch.backends.cuda.matmul.allow_tf32 = True
    choose_device("auto")
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_a_rank_without_a_gpu_of_its_own_is_refused(with_two_gpus):
    with pytest.raises(UserError, match=r"params.yaml: train.devices asks for more .*; expected at most 2"):
        choose_device("auto", 2)


def test_without_a_gpu_cuda_is_refused_and_auto_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(UserError, match="train.device is 'cuda' but no CUDA device is available"):
        choose_device("cuda")


def test_a_processor_is_told_with_its_threads_and_a_gpu_by_its_name(monkeypatch):
    name, _, threads = describe_device(torch.device("cpu")).rpartition(", ")
    assert name
    assert threads == f"{torch.get_num_threads()} threads"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert describe_device(torch.device("cuda", 1)) == "GPU 1"


def test_where_the_processor_s_memory_ends_the_param_is_named_that_asks_for_less():
    expected = (
        r"^params.yaml: the device's memory is too small \(can't allocate memory: you tried to allocate \d+ bytes\); "
        r"expected a smaller train.global_batch_size$"
    )
    with pytest.raises(UserError, match=expected), memory_bounded_by("train.global_batch_size"):
        torch.empty(10**14)  # more than a processor can address


def test_another_error_is_none_of_memory():
    with pytest.raises(RuntimeError, match="size of tensor"), memory_bounded_by("train.global_batch_size"):
        torch.zeros(2) + torch.zeros(3)
