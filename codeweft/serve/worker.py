"""The one thread that drives the engine, and the bridge from it to asyncio.

In:  requests from the event loop, through a thread-safe queue.  Out: their pieces, each on its request's asyncio queue.

Unusual: nothing but this thread touches the engine after it has started (`Engine.check` reads only constants). When
the engine raises, the thread ends with the traceback, everybody who waits is told, and `alive` is false from then on.
"""

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from codeweft.engine.engine import Engine
from codeweft.engine.request import Piece, Request


class WorkerStopped(RuntimeError):
    """The engine's thread has ended: by an error of ours, or because the server is shutting down."""


@dataclass(eq=False, slots=True)
class Ticket:
    """One submitted request and where its pieces go (None there: the thread has ended)."""

    request: Request
    index: int
    arrived: "asyncio.Queue[tuple[int, Piece] | None]"
    done: bool = False  # finished or given up; only the event loop writes it
    id: int | None = None  # the engine's, once it has the request


class Worker:
    """Runs `engine.step()` while there is work and sleeps while there is none."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.inbox: queue.SimpleQueue[tuple[str, Ticket | None]] = queue.SimpleQueue()
        self.tickets: dict[int, Ticket] = {}
        self.open = 0  # requests submitted and not at their end; only the event loop counts
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread; called from the event loop that it serves."""
        self.loop = asyncio.get_running_loop()
        self.thread.start()

    def ask_to_stop(self) -> None:
        """Let the thread end after the step it is in; who still waits is told."""
        self.inbox.put(("stop", None))

    def stop(self) -> None:
        """End the thread and wait until it has ended."""
        self.ask_to_stop()
        self.thread.join(timeout=30)

    @property
    def alive(self) -> bool:
        """Whether requests are being worked on."""
        return self.thread.is_alive() and not self.stopped.is_set()

    def submit(self, requests: Sequence[Request]) -> "Answers":
        """Queue requests together; they count as open from this call on. WorkerStopped when nobody would run them.

        Called from the event loop. Whoever calls it closes the answers in the end.
        """
        if not self.alive:
            raise WorkerStopped("The engine has stopped.")
        answers = Answers(self, requests)
        self.open += len(requests)
        for ticket in answers.tickets:
            self.inbox.put(("submit", ticket))
        return answers

    def _run(self) -> None:
        try:
            while self._read_inbox():
                self._hand_over(self.engine.step())
        finally:
            # In this order: who submits after this line sees it, and who did before is found in the inbox.
            self.stopped.set()
            waiting = list(self.tickets.values())
            while not self.inbox.empty():
                _, ticket = self.inbox.get()
                waiting += [] if ticket is None else [ticket]
            if not self.loop.is_closed():
                for ticket in waiting:
                    self.loop.call_soon_threadsafe(ticket.arrived.put_nowait, None)

    def _read_inbox(self) -> bool:
        """Take what came in, waiting for it when there is nothing to do; False when told to stop."""
        while not self.inbox.empty() or not self.engine.busy:
            order, ticket = self.inbox.get()
            if ticket is None:
                return False
            if order == "submit":
                ticket.id = self.engine.submit(ticket.request)
                self.tickets[ticket.id] = ticket
            elif ticket.id is not None:
                self.engine.cancel(ticket.id)
        return True

    def _hand_over(self, pieces: list[Piece]) -> None:
        """Give a step's pieces to the event loop, all in one call."""
        given = [(self.tickets[piece.request], piece) for piece in pieces]
        for piece in pieces:
            if piece.finish is not None:
                del self.tickets[piece.request]

        def put() -> None:
            for ticket, piece in given:
                if piece.finish is not None:
                    self.settle(ticket)
                ticket.arrived.put_nowait((ticket.index, piece))

        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(put)

    def settle(self, ticket: Ticket) -> None:
        """Count a ticket as done, once: when the engine is done with it, not when its reader has read that."""
        self.open -= not ticket.done
        ticket.done = True


class Answers:
    """The pieces of requests that were submitted together, each with its request's index, as they come."""

    def __init__(self, worker: Worker, requests: Sequence[Request]) -> None:
        self.worker = worker
        self.arrived: asyncio.Queue[tuple[int, Piece] | None] = asyncio.Queue()
        self.tickets = [Ticket(request, index, self.arrived) for index, request in enumerate(requests)]

    async def __aiter__(self) -> AsyncGenerator[tuple[int, Piece]]:
        """Every piece, until all requests have finished; WorkerStopped when the engine ends before."""
        missing = len(self.tickets)
        while missing:
            if self.worker.stopped.is_set() and self.arrived.empty():
                raise WorkerStopped("The engine has stopped.")
            found = await self.arrived.get()
            if found is None:
                raise WorkerStopped("The engine has stopped.")
            missing -= found[1].finish is not None
            yield found

    def close(self) -> None:
        """Cancel what still runs, within one step; may be called at any time and again."""
        for ticket in self.tickets:
            if not ticket.done:
                self.worker.settle(ticket)
                self.worker.inbox.put(("cancel", ticket))
