"""How busy the machine is, with a made-up NVIDIA library where there is no GPU."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trainables import usage
from trainables.usage import Usage

OF_MACHINE = {
    "cpu_utilization_percentage",
    "system_memory_usage_megabytes",
    "system_memory_usage_percentage",
    "process_cpu_percentage",
    "process_memory_megabytes",
}
OF_GPU = {
    "gpu_0_utilization_percentage",
    "gpu_0_memory_usage_megabytes",
    "gpu_0_memory_usage_percentage",
    "gpu_0_power_usage_watts",
    "gpu_0_power_usage_percentage",
}


class Refusal(Exception):
    """As NVMLError."""


class Library:
    """As pynvml, for one GPU of 80 GB whose utilisation is 50 and 100 % in turn."""

    NVMLError = Refusal

    def __init__(self) -> None:
        self.looks = 0
        self.asked: list[str] = []

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        self.asked.append(uuid)
        return "handle"

    def nvmlDeviceGetUtilizationRates(self, _: str) -> Any:
        self.looks += 1
        return SimpleNamespace(gpu=50 * (2 - self.looks % 2))

    def nvmlDeviceGetMemoryInfo(self, _: str) -> Any:
        return SimpleNamespace(used=20e9, total=80e9)

    def nvmlDeviceGetPowerUsage(self, _: str) -> int:
        return 350_000

    def nvmlDeviceGetEnforcedPowerLimit(self, _: str) -> int:
        return 700_000


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    made = Library()
    monkeypatch.setitem(sys.modules, "pynvml", made)
    of = {torch.device("cuda:1"): SimpleNamespace(uuid="1234")}
    monkeypatch.setattr("torch.cuda.get_device_properties", of.__getitem__)
    return made


def test_a_machine_without_gpu_has_processors_and_memory() -> None:
    with Usage(torch.device("cpu")) as watched:
        until = time.process_time() + 0.2
        while time.process_time() < until:
            pass
    means = watched.means()
    assert set(means) == OF_MACHINE
    assert 0 < means["system_memory_usage_percentage"] < 100
    assert 0 <= means["cpu_utilization_percentage"] <= 100
    assert means["process_cpu_percentage"] > 0
    assert 0 < means["process_memory_megabytes"] < means["system_memory_usage_megabytes"] * 10


def test_a_gpu_is_watched_as_long_as_it_works(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "EVERY_SECONDS", 0.005)
    with Usage(torch.device("cuda:1")) as watched:
        while library.looks < 3:
            time.sleep(0.001)
    seen = library.looks
    means = watched.means()
    assert library.asked == ["GPU-1234"]  # not by the index, which is another one to the library
    assert set(means) == OF_MACHINE | OF_GPU
    shares = [50 * (2 - look % 2) for look in range(1, seen + 2)]
    assert means["gpu_0_utilization_percentage"] == round(sum(shares) / len(shares), 1)
    assert (means["gpu_0_memory_usage_megabytes"], means["gpu_0_memory_usage_percentage"]) == (20_000, 25)
    assert (means["gpu_0_power_usage_watts"], means["gpu_0_power_usage_percentage"]) == (350, 50)


def test_what_a_gpu_does_not_tell_is_left_out(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> int:
        raise Refusal

    monkeypatch.setattr(library, "nvmlDeviceGetPowerUsage", refuse)
    with Usage(torch.device("cuda:1")) as watched:
        pass
    assert set(watched.means()) == OF_MACHINE | {name for name in OF_GPU if "power" not in name}


def test_a_gpu_that_is_not_known_stops_nothing(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise Refusal

    monkeypatch.setattr(library, "nvmlInit", fail)
    with Usage(torch.device("cuda:1")) as watched:
        pass
    assert set(watched.means()) == OF_MACHINE
