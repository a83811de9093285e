"""NVIDIA's management library, by ctypes: what each accelerator draws, how hot it is, what it has used, and its power limit.

https://docs.nvidia.com/deploy/nvml-api: milliwatts, millijoules, degrees Celsius. The library comes with the driver; where
there is none, there is nothing to ask.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

NOT_SUPPORTED: Final = 3
TEMPERATURE_GPU: Final = 0
DEVICES_MAX: Final = 64


class NvmlError(Exception):
    """Why the library does not answer, in words."""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One of them; None is what it does not tell."""

    index: int
    watts: float | None
    celsius: float | None
    used_mj: int | None
    """Millijoules since its driver was loaded."""


class Nvml:
    """The library, loaded and begun; `close` ends it."""

    def __init__(self, library: str) -> None:
        """Raises `NvmlError` where there is no such library, or no driver behind it."""
        try:
            self._library = ctypes.CDLL(library)
        except OSError:
            raise NvmlError(f"{library} is not on this machine") from None
        self._check("nvmlInit_v2")
        count = ctypes.c_uint()
        self._check("nvmlDeviceGetCount_v2", ctypes.byref(count))
        self._devices = []
        for index in range(min(count.value, DEVICES_MAX)):
            handle = ctypes.c_void_p()
            self._check("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
            self._devices.append(handle)

    def __len__(self) -> int:
        return len(self._devices)

    def read(self) -> list[Accelerator]:
        """All of them, now. Raises `NvmlError`."""
        return [
            Accelerator(
                index,
                _scaled(self._ask(ctypes.c_uint(), "nvmlDeviceGetPowerUsage", handle), 1000),
                self._ask(ctypes.c_uint(), "nvmlDeviceGetTemperature", handle, ctypes.c_int(TEMPERATURE_GPU)),
                self._ask(ctypes.c_ulonglong(), "nvmlDeviceGetTotalEnergyConsumption", handle),
            )
            for index, handle in enumerate(self._devices)
        ]

    def limit_w(self, index: int) -> float:
        """What the accelerator is capped to now. Raises `NvmlError`."""
        limit = ctypes.c_uint()
        self._check("nvmlDeviceGetPowerManagementLimit", self._devices[index], ctypes.byref(limit))
        return limit.value / 1000

    def limits_w(self, index: int) -> tuple[float, float]:
        """The least and the most watts that the accelerator may be capped to. Raises `NvmlError`."""
        least, most = ctypes.c_uint(), ctypes.c_uint()
        self._check(
            "nvmlDeviceGetPowerManagementLimitConstraints",
            self._devices[index],
            ctypes.byref(least),
            ctypes.byref(most),
        )
        return least.value / 1000, most.value / 1000

    def cap(self, index: int, watts: float) -> None:
        """The accelerator draws no more than this. Raises `NvmlError`: only root may."""
        self._check("nvmlDeviceSetPowerManagementLimit", self._devices[index], ctypes.c_uint(round(watts * 1000)))

    def close(self) -> None:
        self._library.nvmlShutdown()

    def _ask(self, into: ctypes.c_uint | ctypes.c_ulonglong, name: str, *arguments: object) -> int | None:
        status = self._call(name, *arguments, ctypes.byref(into))
        if status == NOT_SUPPORTED:
            return None
        if status:
            raise NvmlError(f"{name} gives error {status}")
        return into.value

    def _check(self, name: str, *arguments: object) -> None:
        if status := self._call(name, *arguments):
            raise NvmlError(f"{name} gives error {status}")

    def _call(self, name: str, *arguments: object) -> int:
        try:
            return int(getattr(self._library, name)(*arguments))
        except AttributeError:
            raise NvmlError(f"the library has no {name}") from None


@contextmanager
def opened(library: str) -> Iterator[Nvml | None]:
    """The library, or None where there is none to ask."""
    try:
        nvml = Nvml(library) if library else None
    except NvmlError:
        nvml = None
    try:
        yield nvml
    finally:
        if nvml:
            nvml.close()


def _scaled(value: int | None, by: float) -> float | None:
    return None if value is None else value / by
