"""Worker processes that leave Ctrl-C to the process that started them and never outlive it.

In:  a number of processes.  Out: an executor, whose processes have ended when the block has.

Unusual: the standard library's workers answer Ctrl-C with a traceback each, are waited for until they have done all
that was submitted, and stay for ever when the process that started them is killed.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any


class _Executor(ProcessPoolExecutor):
    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        # processes are started here and inherit what is blocked; an interrupt that falls in between arrives right after
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(function, *arguments, **named)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def worker_processes(number: int) -> Generator[ProcessPoolExecutor, None, None]:
    """An executor over `number` processes; an error or an interrupt in the block ends them at once.

    What they are in the midst of is lost then: they should write only files that are whole or absent.
    """
    others = set(multiprocessing.active_children())
    # spawn: a forked child would inherit the threads of Arrow and torch in whatever state they are
    executor = _Executor(number, multiprocessing.get_context("spawn"), initializer=_begin)
    finished = False
    try:
        yield executor
        finished = True
    finally:
        # ended before the executor is told: it waits for those that run
        for process in () if finished else set(multiprocessing.active_children()) - others:
            process.terminate()
        executor.shutdown(cancel_futures=True)


def _begin() -> None:
    # one process a core already: threads of the tokenizers library would only get in each other's way
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a worker ends with its parent"
    parent.join()
    os._exit(1)
