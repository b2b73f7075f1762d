from functools import partial

import pytest

from pipeline.errors import UserError
from pipeline.graphs.variants import speed
from pipeline.runtime.providers import PROVIDERS


class Machine:
    """Its clock stands still but for the calls of its sessions, and the machine slows down all the time."""

    def __init__(self, monkeypatch):
        self.now, self.calls, self.refused = 0.0, [], set()
        monkeypatch.setattr(speed, "open_session", partial(Session, self))
        monkeypatch.setattr(speed, "CapturedGraph", lambda session: session)
        monkeypatch.setattr(speed.time, "perf_counter", lambda: self.now)


class Session:
    def __init__(self, machine, content, device, name, *, capture=False):
        if capture and content in machine.refused:
            raise UserError("cannot be captured")
        self.machine, self.seconds, self.device, self.capture = machine, float(content.decode()), device, capture

    def get_providers(self):
        return [PROVIDERS[self.device]]

    def get_inputs(self):
        return []

    def run(self, outputs, rows):
        machine = self.machine
        machine.calls.append((self.seconds, len(rows["seed"]), self.device, self.capture))
        machine.now += self.seconds * len(rows["seed"]) * (1 + 0.001 * len(machine.calls))


def test_the_ratio_is_that_of_seconds_on_a_machine_that_slows_down(monkeypatch):
    Machine(monkeypatch)
    found = speed.measure_speedups(b"0.0003", b"0.0001", "cpu")
    assert list(found) == [1, 64, 512]
    assert list(found.values()) == pytest.approx([3, 3, 3], rel=0.01)


def test_the_files_take_turns_on_the_device_that_is_asked_for(monkeypatch):
    machine = Machine(monkeypatch)
    speed.measure_speedups(b"0.0003", b"0.0001", "cuda")
    seconds, _, devices, _ = zip(*machine.calls, strict=True)
    assert set(devices) == {"cuda"}
    assert seconds[0::2] == (0.0003,) * (len(seconds) // 2)
    assert seconds[1::2] == (0.0001,) * (len(seconds) // 2)


@pytest.mark.parametrize(
    ("device", "refused", "captured"),
    [
        ("cuda", set(), {(0.0003, True), (0.0001, True)}),
        ("cuda", {b"0.0001"}, {(0.0003, True), (0.0001, False)}),
        ("cpu", set(), {(0.0003, False), (0.0001, False)}),
    ],
)
def test_a_sampler_is_timed_as_it_is_served_on_cuda_by_captured_graphs(monkeypatch, device, refused, captured):
    machine = Machine(monkeypatch)
    machine.refused = refused
    speed.measure_speedups(b"0.0003", b"0.0001", device)
    assert {(seconds, capture) for seconds, _, _, capture in machine.calls} == captured


def test_a_slow_model_is_not_run_hundreds_of_times(monkeypatch):
    machine = Machine(monkeypatch)
    speed.measure_speedups(b"0.01", b"0.01", "cpu")  # ten seconds for two calls of 512 images
    assert len([call for call in machine.calls if call[1] == 512]) <= 2 * (speed.WARM_UP + 1)
