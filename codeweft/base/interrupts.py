"""Makes Ctrl-C count wherever it falls.

In:  a block of code.  Out: the same, in which no KeyboardInterrupt is lost.
Unusual: Python prints and drops an exception that is raised in a finaliser or in a weak reference's callback, also when
it is an interrupt that fell there by chance: the program would go on as if nobody had pressed a key.
"""

import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager

PAUSE = 0.05  # seconds until an interrupt is sent again: by then what dropped it has returned


@contextmanager
def interrupts_kept() -> Generator[None, None, None]:
    """Send the main thread an interrupt again where Python dropped one."""
    before = sys.unraisablehook

    def hook(dropped: "sys.UnraisableHookArgs") -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            before(dropped)
            return
        # not from here, where it would be dropped as well
        main = threading.main_thread().ident
        assert main is not None
        threading.Timer(PAUSE, signal.pthread_kill, (main, signal.SIGINT)).start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
