import pytest

from pipeline.graphs import latency
from pipeline.graphs.latency import sample_latency
from pipeline.runtime import Sampler


@pytest.fixture
def clock(monkeypatch):
    """A clock that a call of the sampler advances by the next of these seconds; also the calls so far."""
    seconds, calls = [], []

    def sample(sampler, n, label):
        assert label is None
        calls.append(n)
        now[0] += seconds[min(len(calls), len(seconds)) - 1]

    now = [0.0]
    monkeypatch.setattr(Sampler, "sample", sample)
    monkeypatch.setattr(latency.time, "perf_counter", lambda: now[0])
    return seconds, calls


def test_the_latency_is_the_median_of_calls_for_64_images(clock, mlp):
    seconds, calls = clock
    seconds += [9.0, 9.0, 9.0] + [0.003] * 9 + [0.001] * 10 + [0.5]
    assert sample_latency(mlp.folder) == pytest.approx(2.0)
    assert calls == [64] * 23


def test_a_slow_model_is_called_less_often(clock, mlp):
    seconds, calls = clock
    seconds += [4.0]
    assert sample_latency(mlp.folder) == pytest.approx(4000.0)
    assert len(calls) == 3 + 2
