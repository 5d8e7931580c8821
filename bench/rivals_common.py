"""What the Python rivals of the benchmarks share: the serve protocol's lines, prompts, and memory (docs/benchmarks.md)."""

import json
import time


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


def random_prompts(count, length, vocabulary):
    """Lists of ids, those of randomSequences in lib/bench/serve.ts."""
    state = 1

    def draw():
        nonlocal state
        state = (state * 1_664_525 + 1_013_904_223) % 2**32
        return 3 + int(state / 2**32 * (vocabulary - 3))

    return [[draw() for _ in range(length)] for _ in range(count)]


class Phases:
    """Seconds and peak memory of an iteration, as a whole and by phase; as Meter in lib/bench/meter.ts.

    A phase that begins within another one stops that one's clock: every moment counts once.
    """

    def __init__(self, base):
        self.base = base

    def begin(self):
        self.began, self.cpu_began = time.perf_counter(), time.process_time()
        self.since = self.began
        self.peak_is_known = reset_peak_memory()
        self.now = None
        self.seconds, self.peaks = {}, {}

    def enter(self, phase):
        """Ends the phase that runs, and returns its name."""
        before = self.now
        at = time.perf_counter()
        self.seconds[before] = self.seconds.get(before, 0) + at - self.since
        self.peaks[before] = max(self.peaks.get(before, 0), status_bytes("VmHWM:") - self.base)
        reset_peak_memory()
        self.since, self.now = at, phase
        return before

    def end(self):
        """The answer to `run`."""
        self.enter(None)
        peak = max(self.peaks.values())
        answer = {
            "seconds": time.perf_counter() - self.began,
            "cpu_seconds": time.process_time() - self.cpu_began,
            "peak_bytes": max(0, peak) if self.peak_is_known else None,
        }
        for phase in filter(None, self.seconds):
            answer[f"{phase}_seconds"] = self.seconds[phase]
            if self.peak_is_known:
                answer[f"{phase}_peak_bytes"] = max(0, self.peaks[phase])
        return answer

    def wrap(self, owner, method, phase):
        """Every call of owner.method counts as that phase."""
        original = getattr(owner, method)

        def timed(*args, **kwargs):
            before = self.enter(phase)
            try:
                return original(*args, **kwargs)
            finally:
                self.enter(before)

        setattr(owner, method, timed)
