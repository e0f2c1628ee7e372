"""What dies under a sandbox is replaced or reported, what is given up is freed, and what ends leaves nothing behind."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sandbox.opened import SMALL, Opened, alive, below, call, check, opened, parent, settled

from codeweft.base.errors import UserError
from codeweft.base.records import Verdict
from codeweft.sandbox.client import LocalSandbox
from codeweft.sandbox.client import judge_all as judge_all_at_once
from codeweft.sandbox.config import Program, Ran, SandboxConfig, Submission

PATIENT = replace(SMALL, cpu_seconds=5.0, wall_seconds=60.0)
SLEEPER = Program("python", "import time; time.sleep(50)", limits=PATIENT)
HALF = "import time\ndef f(x):\n    time.sleep(1.0)\n    return x\n"
SLOW = Submission("python", HALF, (call(1, expected=1),), "f", limits=PATIENT)
QUICK = Submission("python", "def f(x): return x", (call(1, expected=1),), "f", limits=SMALL)


@pytest.fixture(scope="module")
def box() -> Iterator[Opened]:
    with opened(cache=0) as sandbox:
        yield sandbox


@pytest.fixture
def own() -> Iterator[Opened]:
    """A sandbox for one test alone, which remembers."""
    with opened() as sandbox:
        yield sandbox


def cells(sandbox: Opened) -> list[list[int]]:
    """The processes of each cell, from its wall inwards to the warm interpreter, then whatever runs in it."""
    found = []
    for root in sorted(number for number in below(sandbox.supervisor) if parent(number) == sandbox.supervisor):
        inside = [number for number in below(root) if alive(number)]
        chain = [root]
        while len(chain) < 4 and (children := [number for number in inside if parent(number) == chain[-1]]):
            chain.append(min(children))
        found.append(chain + [number for number in inside if number not in chain])
    return found


def worker(sandbox: Opened) -> list[int]:
    """The processes of the only cell that programs run in, or none; the other one is the testers', started last."""
    now = cells(sandbox)
    if not hasattr(sandbox, "tester"):
        sandbox.tester = now[1][0]
    return next((cell for cell in now if cell[0] != sandbox.tester), [])


def busy(sandbox: Opened) -> bool:
    """Whether a program runs: the first process of a box, and its own."""
    return len(worker(sandbox)) >= 6


def kill_when_busy(sandbox: Opened, times: int) -> None:
    """Kill the cell of programs so many times, each time when a program runs in it."""
    for _ in range(times):
        assert settled(lambda: busy(sandbox), 30)
        os.kill(worker(sandbox)[0], signal.SIGKILL)
        assert settled(lambda: not busy(sandbox), 30)


async def meanwhile(work: Coroutine[Any, Any, Any], *deeds: Callable[[], object], pause: float = 0.25) -> Any:
    """Do things one after the other while some work is going on."""
    task = asyncio.ensure_future(work)
    for deed in deeds:
        await asyncio.sleep(pause)
        await asyncio.to_thread(deed)
    return await task


# --- cells that die ------------------------------------------------------------------------------------------------


ASSERTED = replace(SLOW, tests=(check("assert f(1) == 1"),))


@pytest.mark.parametrize(
    ("depth", "submission"),
    [
        pytest.param(0, SLOW, id="wall, call"),
        pytest.param(3, ASSERTED, id="interpreter, assert"),
        pytest.param(3, SLOW, id="interpreter, call", marks=pytest.mark.slow),
        pytest.param(0, ASSERTED, id="wall, assert", marks=pytest.mark.slow),
    ],
)
def test_what_ran_on_a_cell_that_died_is_run_once_more(box: Opened, depth: int, submission: Submission):
    assert box.do(box.sandbox.judge(QUICK)).status == "ok"
    victim, before = worker(box)[depth], box.state()["deaths"]
    verdict = box.do(meanwhile(box.sandbox.judge(submission), lambda: os.kill(victim, signal.SIGKILL)))
    assert (verdict.status, verdict.passed) == ("ok", 1), verdict
    assert box.state()["deaths"] == before + 1
    assert box.do(box.sandbox.judge(QUICK)).status == "ok"


def test_a_cell_that_died_while_idle_is_replaced_without_a_try(box: Opened):
    assert box.do(box.sandbox.judge(QUICK)).status == "ok"
    before = box.state()["deaths"]
    for depth in (0, 3):
        os.kill(worker(box)[depth], signal.SIGKILL)
        assert box.python("print(1)").stdout == b"1\n"
    assert box.state()["deaths"] == before + 2


def test_the_testers_cell_may_die_too(own: Opened):
    victim = cells(own)[1][0]
    verdict = own.do(meanwhile(own.sandbox.judge(ASSERTED), lambda: os.kill(victim, signal.SIGKILL)))
    assert verdict.status == "ok", verdict
    assert own.state()["deaths"] == 1


def test_a_box_whose_first_process_is_killed_from_outside_is_no_verdict_on_the_program(box: Opened):
    assert box.do(box.sandbox.judge(QUICK)).status == "ok"
    victims: list[int] = []
    before = box.state()["deaths"]

    def kill_first() -> None:
        assert settled(lambda: busy(box))
        victims.append(min(worker(box)[4:]))
        os.kill(victims[0], signal.SIGKILL)

    ran = box.do(meanwhile(box.sandbox.run(replace(SLEEPER, code="import time; time.sleep(1)")), kill_first))
    assert victims
    assert ran.status == "ok"
    assert box.state()["deaths"] == before


def test_a_program_whose_cell_dies_at_each_try_is_a_fault_of_ours_and_is_forgotten(own: Opened):
    verdict: Verdict = own.do(meanwhile(own.sandbox.judge(SLOW), lambda: kill_when_busy(own, 2)))
    assert (verdict.status, verdict.passed, verdict.total) == ("harness_error", 0, 1)
    assert verdict.detail
    before = own.state()["boxes"]
    assert own.do(own.sandbox.judge(SLOW)).status == "ok"  # judged, not remembered
    assert own.state()["boxes"] > before


@pytest.mark.slow
def test_a_run_reports_a_fault_of_ours_as_such(box: Opened):
    ran: Ran = box.do(meanwhile(box.sandbox.run(SLEEPER), lambda: kill_when_busy(box, 2)))
    assert (ran.status, ran.exit_code, ran.stdout) == ("harness_error", None, b"")
    assert ran.detail


def test_when_the_supervisor_is_killed_all_who_wait_are_told_and_no_cell_is_left(own: Opened):
    processes = [own.supervisor, *below(own.supervisor)]

    async def wait_for_all() -> list[Any]:
        work = [own.sandbox.run(SLEEPER) for _ in range(5)] + [own.sandbox.judge(SLOW)]
        waiting = asyncio.gather(*work, return_exceptions=True)
        await asyncio.sleep(0.2)
        os.kill(own.supervisor, signal.SIGKILL)
        async with asyncio.timeout(5):
            return await waiting

    told = own.do(wait_for_all())
    assert all(isinstance(each, UserError) and "has ended" in str(each) for each in told), told
    with pytest.raises(UserError, match="Open the sandbox again"):
        own.python("print(1)")
    assert settled(lambda: not any(map(alive, processes)))


def test_whoever_waits_when_the_sandbox_is_closed_is_told():
    async def closed_under() -> None:
        sandbox = LocalSandbox(SandboxConfig(cells=1))
        await sandbox.start()
        waiting = asyncio.ensure_future(sandbox.run(SLEEPER))
        await asyncio.sleep(0.1)
        await sandbox.close()
        async with asyncio.timeout(5):
            with pytest.raises(UserError, match="closed"):
                await waiting
            with pytest.raises(UserError, match="closed"):
                await sandbox.run(SLEEPER)

    asyncio.run(closed_under())


# --- giving up, waiting, remembering -------------------------------------------------------------------------------


def test_a_judgement_that_is_cancelled_frees_its_cell(box: Opened):
    async def cancel_some() -> float:
        for pause in (0.0, 0.001, 0.01, 0.1):
            task = asyncio.ensure_future(box.sandbox.run(SLEEPER))
            await asyncio.sleep(pause)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        began = time.monotonic()
        assert (await box.sandbox.judge(QUICK)).status == "ok"
        return time.monotonic() - began

    assert box.do(box.sandbox.judge(QUICK)).status == "ok"
    deaths = box.state()["deaths"]
    assert box.do(cancel_some()) < 10
    assert settled(lambda: not busy(box))
    assert box.state()["deaths"] == deaths


def test_answers_stay_with_their_questions_however_many_are_cancelled(box: Opened):
    """A cell answers a cancelled opening as well; its answer must not be taken for the next one's."""

    async def mixed() -> None:
        programs = [Program("python", f"print({number})", limits=SMALL) for number in range(60)]
        tasks = [asyncio.ensure_future(box.sandbox.run(program)) for program in programs]
        for number, task in enumerate(tasks):
            if number % 2:
                await asyncio.sleep(0.0007 * (number % 9))
                task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        for number, ran in enumerate(done):
            assert isinstance(ran, asyncio.CancelledError) or ran.stdout == b"%d\n" % number

    for _ in range(3):
        box.do(mixed())
    assert box.says("print('after')") == "after\n"


def test_a_deadline_ends_what_is_late_wherever_it_waits():
    with opened(waiting=1) as box:

        async def late(*deadlines: float) -> list[Verdict]:
            work = zip(each, deadlines, strict=True)
            return await asyncio.gather(*(box.sandbox.judge(judged, deadline=end) for judged, end in work))

        sleeper = replace(QUICK, code="import time\ndef f(x): time.sleep(60)", limits=PATIENT)
        each = (sleeper, replace(sleeper, tolerance=1.0))
        began = time.monotonic()
        verdicts = box.do(late(1.0, 0.3))
        assert time.monotonic() - began < 8
        assert [verdict.status for verdict in verdicts] == ["harness_error"] * 2
        assert all("deadline" in verdict.detail for verdict in verdicts)
        assert box.do(box.sandbox.judge(QUICK, deadline=30)).status == "ok"
        ran = box.do(box.sandbox.run(SLEEPER, deadline=0.2))
        assert (ran.status, ran.tier) == ("harness_error", "namespaces")


def test_no_more_are_asked_than_may_wait():
    with opened(waiting=1, cache=0) as box:

        async def at_once() -> int:
            most = 0
            tasks = [asyncio.ensure_future(box.sandbox.run(Program("python", "", limits=SMALL))) for _ in range(8)]
            while not all(task.done() for task in tasks):
                most = max(most, len(box.sandbox.waiting))
                await asyncio.sleep(0)
            assert all(task.result().status == "ok" for task in tasks)
            return most

        assert box.do(at_once()) == 1


def test_a_verdict_is_found_again_without_a_box(own: Opened):
    first = own.do(own.sandbox.judge(QUICK))
    boxes = own.state()["boxes"]
    assert own.do(own.sandbox.judge(replace(QUICK, tests=(call(1, expected=1),)))) == first
    assert own.state()["boxes"] == boxes
    others = [
        replace(QUICK, code=QUICK.code + "\n"),
        replace(QUICK, tests=(call(1, expected=2),)),
        replace(QUICK, tests=(call(1, expected=True),)),
        replace(QUICK, tests=(call(1, expected=1.0),)),
        replace(QUICK, tests=(call(True, expected=1),)),
        replace(QUICK, limits=replace(SMALL, tasks=33)),
        replace(QUICK, tolerance=0.5),
        replace(QUICK, stop_early=False),
        replace(QUICK, setup="x = 1"),
        replace(QUICK, limits=None),
    ]
    statuses = [own.do(own.sandbox.judge(other)).status for other in others]
    assert statuses == ["ok", "wrong", "wrong", "ok", "wrong", "ok", "ok", "ok", "ok", "ok"]
    assert own.state()["boxes"] == boxes + len(others)


def test_no_more_verdicts_are_kept_than_asked_for():
    with opened(cache=2) as box:
        for number in (1, 2, 3):
            box.judge(QUICK.code, call(number, expected=number))
        boxes = box.state()["boxes"]
        box.judge(QUICK.code, call(3, expected=3))
        box.judge(QUICK.code, call(2, expected=2))
        assert box.state()["boxes"] == boxes
        box.judge(QUICK.code, call(1, expected=1))
        assert box.state()["boxes"] == boxes + 1


def test_verdicts_come_in_the_order_of_the_submissions():
    code = "import time\ndef f(x):\n    time.sleep(x % 3 / 20)\n    return x\n"
    submissions = [
        replace(QUICK, code=code, tests=(call(number, expected=number if number % 2 else -1),), limits=PATIENT)
        for number in range(12)
    ]
    wanted = ["wrong", "ok"] * 6
    with opened(cells=2) as box:
        assert [verdict.status for verdict in box.do(box.sandbox.judge_all(submissions))] == wanted
    assert [verdict.status for verdict in judge_all_at_once(SandboxConfig(cells=2), submissions)] == wanted


def test_one_submission_that_cannot_be_judged_ends_all_and_leaves_the_sandbox_whole(box: Opened):
    with pytest.raises(UserError, match="no-such-language"):
        box.do(box.sandbox.judge_all([SLOW, replace(QUICK, language="no-such-language"), SLOW]))
    assert box.do(box.sandbox.judge(QUICK)).status == "ok"


def test_a_fault_in_the_supervisor_is_told_and_hangs_nobody(box: Opened):
    request = {"do": "judge", "what": {"tests": "never sent", "language": "python"}, "tests": 1, "deadline": None}
    with pytest.raises(RuntimeError, match="made a mistake"):
        box.do(box.sandbox._ask(request))
    assert box.do(box.sandbox.judge(QUICK)).status == "ok"
