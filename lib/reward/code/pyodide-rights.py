# The counterpart of rights.py in WebAssembly, where an answer has no system calls to give up. What bounds it stands outside:
# the limits of the process (pyodide.ts) and of Node (pyodide-runner.mjs).
import os
import sys
import threading


def start(self):
    """A thread runs from its start to its end, as it may anywhere: there are none here, and programs use one for its stack."""
    if self._started.is_set():
        raise RuntimeError('threads can only be started once')
    self._started.set()
    try:
        self.run()
    except BaseException:
        threading.excepthook(threading.ExceptHookArgs([*sys.exc_info(), self]))


threading.Thread.start = start
threading.Thread.join = lambda self, timeout=None: None
threading.Thread.is_alive = lambda self: False


def hide():
    """An answer finds the standard library alone. No wall: the bridges could be built again, and lead nowhere much."""
    bridges = {'js', 'pyodide_js', 'pyodide', '_pyodide', '_pyodide_core'}
    for name in [name for name in sys.modules if name.split('.')[0] in bridges]:
        del sys.modules[name]
    own = '_pyodide._importhook'
    sys.meta_path[:] = [finder for finder in sys.meta_path if own not in (finder.__module__, type(finder).__module__)]
    sys.path = [entry for entry in sys.path if entry]
    os.environ.clear()
    sys.stdout.reconfigure(line_buffering=False, write_through=False)


def confine(limits, readable):
    return []


def run():
    """As python3 runs a script: the exit status."""
    try:
        main()
        status = 0
    except SystemExit as end:
        status = end.code
        if status is not None and not isinstance(status, int):
            print(status, file=sys.stderr)
            status = 1
    except BaseException as error:
        import traceback
        traceback.print_exception(error)
        status = 1
    __import__('atexit')._run_exitfuncs()
    for stream in (sys.stdout, sys.__stdout__, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass  # the answer closed it, or put something else in its place
    return (status or 0) & 255
