"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def description() -> str:
    """Processor, memory, kernel, and how TCP paces itself, which streams feel."""
    kernel = f"Linux {platform.release()}, TCP {_congestion_control()}"
    return f"{_cpu()}, {os.cpu_count()} cores, {_memory():.0f} GB, {kernel}"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def _congestion_control() -> str:
    return Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
