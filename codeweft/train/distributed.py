"""Several processes that train one model, each on its share of every step: torchrun's, joined by torch.distributed.

In:  torchrun's environment.  Out: a `Group`, for as long as a block lasts.
Source: DeepSeek-V2 §3.1.3 (data parallelism, without ZeRO's dividing of the optimizer; its other kinds are not built).

Unusual: every process holds the whole model and makes the same update from the summed gradients, so their weights stay
equal without being sent. Objects travel as pickles between processes of one run, never to or from a file.
"""

import os
import signal
import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from codeweft.base.errors import UserError
from codeweft.base.processes import Item, ProcessLost, Together, rank, started
from codeweft.base.progress import say

BUCKET = 1 << 24  # numbers that are summed at once; bounds the copy of them to 64 MiB
# one process may draw answers, or wait for verdicts, long after the others are done; torchrun tells of those that die
PATIENCE = timedelta(days=2)
CLOSED = ("by peer", "Broken pipe")  # how gloo tells that another process is gone
GOES_ON = "the same command goes on from the last checkpoint"


class Group(Together):
    """This process's view of all."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def every(self, value: Item) -> list[Item]:
        """The values of all processes, by rank."""
        found: list[Any] = [None] * self.size
        with _told_if_lost():
            dist.all_gather_object(found, value)
        return found

    def first(self, value: Item) -> Item:
        """The value of the first process."""
        held: list[Any] = [value]
        with _told_if_lost():
            dist.broadcast_object_list(held, src=0)
        return held[0]

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace float32 tensors of one device by their sums over all processes."""
        bucket: list[Tensor] = []
        for tensor in tensors:
            assert tensor.dtype == torch.float32, "sums of fewer bits would depend on the number of processes"
            if bucket and sum(each.numel() for each in bucket) + tensor.numel() > BUCKET:
                _sum_bucket(bucket)
                bucket = []
            bucket.append(tensor)
        if bucket:
            _sum_bucket(bucket)

    def wait(self) -> None:
        """Go on when all have come here."""
        self.every(None)  # not dist.barrier, which takes a GPU where there is one


def _sum_bucket(bucket: list[Tensor]) -> None:
    if len(bucket) == 1 and bucket[0].is_contiguous():  # perhaps a stack of experts: no copy
        with _told_if_lost():
            dist.all_reduce(bucket[0])
        return
    flat = torch.cat([each.reshape(-1) for each in bucket])
    with _told_if_lost():
        dist.all_reduce(flat)
    for tensor, part in zip(bucket, flat.split([each.numel() for each in bucket]), strict=True):
        tensor.copy_(part.view_as(tensor))


@contextmanager
def _told_if_lost() -> Generator[None, None, None]:
    try:
        yield
    except RuntimeError as error:  # gloo has no class of its own for a connection that is closed
        reason = str(error).splitlines()[0]
        lost = "" if any(word in reason for word in CLOSED) else f" ({reason})"
        # said here, since torchrun may end this process before its own end is reached
        say(f"another process of the {started()} has ended, so this one does{lost}; {GOES_ON}.")
        if rank() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise ProcessLost(f"Process {rank()} of {started()} lost the others.") from error


@contextmanager
def together(device: str, setting: str) -> Generator[Together, None, None]:
    """All processes as a group. `device` is what the stage was told to work on, by `setting`.

    Each takes the GPU of its number on its machine. UserError where there are fewer.
    """
    local, here = int(os.environ.get("LOCAL_RANK", rank())), int(os.environ.get("LOCAL_WORLD_SIZE", started()))
    on_gpus = device != "cpu" and torch.cuda.is_available()
    if device not in ("cpu", "cuda", "auto"):
        raise UserError(f"{setting} = {device} names one device for {started()} processes.", "Use cpu, cuda or auto.")
    if on_gpus:
        if here > torch.cuda.device_count():
            raise UserError(
                f"{here} processes were started on a machine with {torch.cuda.device_count()} GPUs.",
                f"Start one for each, or set --{setting}=cpu.",
            )
        torch.cuda.set_device(local)
    if here == started() and "GLOO_SOCKET_IFNAME" not in os.environ:
        # all on this machine: gloo would look its host name up, which may lead nowhere, or to an address out of reach
        loopback = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
        os.environ |= {"GLOO_SOCKET_IFNAME": loopback[0]} if loopback else {}
    backend = "cpu:gloo,cuda:nccl" if on_gpus and dist.is_nccl_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"Process {rank()} of {started()} could not join the others: {str(error).splitlines()[0]}.",
            "Start all with torchrun; across machines, GLOO_SOCKET_IFNAME names the network that they share.",
        ) from error
    group = Group()
    before = signal.signal(signal.SIGTERM, _told_when_ended) if group.leads else None
    yield group
    group.wait()  # that none ends while another still needs it
    dist.destroy_process_group()
    if group.leads:
        signal.signal(signal.SIGTERM, before)


def _told_when_ended(number: int, _: object) -> None:
    """When one has died, torchrun ends the others; where that one said nothing, as a killed one does, somebody must."""
    os.write(2, f"codeweft: ended from outside, most likely because another process has ended; {GOES_ON}.\n".encode())
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
