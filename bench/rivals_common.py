"""What the Python rivals of the benchmarks share: the serve protocol's lines, and memory (docs/benchmarks.md)."""

import json


def status_bytes(key):
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    return 0


def reset_peak_memory():
    """The high-water mark falls back to what is resident; False where the kernel does not allow it."""
    try:
        with open("/proc/self/clear_refs", "w") as clear:
            clear.write("5")
        return True
    except OSError:
        return False


def say(**event):
    print(json.dumps(event), flush=True)
