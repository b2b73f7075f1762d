import pytest

from pipeline.graphs.variants import speed


class Machine:
    """Its clock stands still but for the calls of its sessions, and the machine slows down all the time."""

    def __init__(self, monkeypatch):
        self.now, self.calls = 0.0, []
        monkeypatch.setattr(speed, "open_session", lambda content, device, name: Session(self, content, device))
        monkeypatch.setattr(speed.time, "perf_counter", lambda: self.now)


class Session:
    def __init__(self, machine, content, device):
        self.machine, self.seconds, self.device = machine, float(content.decode()), device

    def get_inputs(self):
        return []

    def run(self, outputs, rows):
        machine = self.machine
        machine.calls.append((self.seconds, len(rows["seed"]), self.device))
        machine.now += self.seconds * len(rows["seed"]) * (1 + 0.001 * len(machine.calls))


def test_the_ratio_is_that_of_seconds_on_a_machine_that_slows_down(monkeypatch):
    Machine(monkeypatch)
    found = speed.measure_speedups(b"0.0003", b"0.0001", "cpu")
    assert list(found) == [1, 64, 512]
    assert list(found.values()) == pytest.approx([3, 3, 3], rel=0.01)


def test_the_files_take_turns_on_the_device_that_is_asked_for(monkeypatch):
    machine = Machine(monkeypatch)
    speed.measure_speedups(b"0.0003", b"0.0001", "cuda")
    seconds, _, devices = zip(*machine.calls, strict=True)
    assert set(devices) == {"cuda"}
    assert seconds[0::2] == (0.0003,) * (len(seconds) // 2)
    assert seconds[1::2] == (0.0001,) * (len(seconds) // 2)


def test_a_slow_model_is_not_run_hundreds_of_times(monkeypatch):
    machine = Machine(monkeypatch)
    speed.measure_speedups(b"0.01", b"0.01", "cpu")  # ten seconds for two calls of 512 images
    assert len([call for call in machine.calls if call[1] == 512]) <= 2 * (speed.WARM_UP + 1)
