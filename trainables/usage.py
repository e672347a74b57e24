"""How busy the machine is while something runs: its processors and memory, this process, the GPU.

The numbers have MLflow's names for them, which its page shows as system metrics; those of the process are
ours. What is not to be had, as on a machine without NVIDIA's library, is left out.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

import psutil
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERY_SECONDS = 2.0
"""Between two looks at what has no counter; a GPU's utilisation is of the last second."""


class Usage:
    """Inside, the machine is watched by a thread, and at the end once more. device: the one in use, as
    `cuda:1`."""

    def __init__(self, device: torch.device) -> None:
        self.gpu = Gpu.of(device) if device.type == "cuda" else None
        self.process = psutil.Process()
        self.seen: list[dict[str, float]] = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="usage", daemon=True)

    def __enter__(self) -> Usage:
        self.started, self.before, self.own = time.perf_counter(), psutil.cpu_times(), self._seconds()
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.ended.wait(EVERY_SECONDS):
            self.seen.append(self._look())

    def means(self) -> dict[str, float]:
        """Means over what was seen so far, to a tenth. `process_cpu_percentage` is 100 for each core that is
        fully used."""
        elapsed = max(time.perf_counter() - self.started, 1e-9)
        seen = [*self.seen, self._look()]
        busy = {
            "cpu_utilization_percentage": _busy(self.before, psutil.cpu_times()),
            "process_cpu_percentage": 100 * (self._seconds() - self.own) / elapsed,
        }
        means = {name: sum(each[name] for each in seen) / len(seen) for name in seen[-1]}
        return {name: round(value, 1) for name, value in (busy | means).items()}

    def _look(self) -> dict[str, float]:
        memory = psutil.virtual_memory()
        return {
            "system_memory_usage_megabytes": memory.used / 1e6,
            "system_memory_usage_percentage": 100 * memory.used / memory.total,
            "process_memory_megabytes": self.process.memory_info().rss / 1e6,
            **(self.gpu.look() if self.gpu else {}),
        }

    def _seconds(self) -> float:
        """Of all cores that the process has used so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


def _busy(before: Any, after: Any) -> float:
    """Percentage of all cores' time that was neither idle nor spent on waiting for a disk."""
    passed = [b - a for a, b in zip(before, after, strict=True)]
    spent = dict(zip(after._fields, passed, strict=True))
    whole = sum(passed) - spent.get("guest", 0) - spent.get("guest_nice", 0)  # which are user time, too
    idle = spent["idle"] + spent.get("iowait", 0)
    return 100 * (whole - idle) / whole if whole > 0 else 0.0


class Gpu:
    """One GPU, by NVIDIA's library. It is number 0, whichever of the machine's it is."""

    def __init__(self, library: Any, handle: Any) -> None:
        self.library, self.handle = library, handle

    @staticmethod
    def of(device: torch.device) -> Gpu | None:
        """None if it can't be watched. Indices of torch's are not the library's, UUIDs are."""
        try:
            import pynvml

            pynvml.nvmlInit()
            uuid = torch.cuda.get_device_properties(device).uuid
            return Gpu(pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))
        except Exception:  # of a library, a driver or a partition of a GPU that we don't know
            return None

    def look(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for numbers in (self._utilization, self._memory, self._power):
            with suppress(self.library.NVMLError):  # not every GPU tells everything
                found |= {f"gpu_0_{name}": value for name, value in numbers()}
        return found

    def _utilization(self) -> Iterator[tuple[str, float]]:
        yield "utilization_percentage", self.library.nvmlDeviceGetUtilizationRates(self.handle).gpu

    def _memory(self) -> Iterator[tuple[str, float]]:
        memory = self.library.nvmlDeviceGetMemoryInfo(self.handle)
        yield "memory_usage_megabytes", memory.used / 1e6
        yield "memory_usage_percentage", 100 * memory.used / memory.total

    def _power(self) -> Iterator[tuple[str, float]]:
        milliwatts = self.library.nvmlDeviceGetPowerUsage(self.handle)
        yield "power_usage_watts", milliwatts / 1000
        yield (
            "power_usage_percentage",
            100 * milliwatts / self.library.nvmlDeviceGetEnforcedPowerLimit(self.handle),
        )
