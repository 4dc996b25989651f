"""Resident memory of this process."""

from __future__ import annotations

from pathlib import Path


def resident(what: str = "VmRSS") -> int:
    """Resident bytes of this process: 'VmRSS' now, 'VmHWM' at most. Where there is no /proc, the most so far."""
    status = Path("/proc/self/status")
    if not status.exists():
        import resource
        import sys

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    line = next(line for line in status.read_text().splitlines() if line.startswith(f"{what}:"))
    return int(line.split()[1]) * 1024
