"""What machine this is."""

import os
import platform
from pathlib import Path


def processor() -> str:
    """Name of the processor and its number of cores."""
    name = platform.processor() or platform.machine()
    about = Path("/proc/cpuinfo")  # Linux tells more than platform does
    if about.exists():
        lines = about.read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores"
