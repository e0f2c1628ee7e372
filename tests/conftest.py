"""What every test may ask for, and the rule that a skip needs one of the accepted reasons."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before torch is first imported: two test processes share two cores, and tiny products on two threads wait for each
# other longer than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ACCEPTED_REASONS = ("gpu", "ray", "shared data", "toolchain")
skips: list[tuple[str, str]] = []


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; tests that want it are skipped where it is not."""
    folder = Path(os.environ.get("CODEWEFT_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "corpus").is_dir():
        pytest.skip("shared data")
    return folder


@pytest.hookimpl
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and isinstance(report.longrepr, tuple):
        skips.append((report.nodeid, report.longrepr[2].removeprefix("Skipped: ")))


@pytest.hookimpl(hookwrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    yield
    if any(not reason.startswith(ACCEPTED_REASONS) for _, reason in skips):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for test, reason in skips:
        accepted = reason.startswith(ACCEPTED_REASONS)
        terminalreporter.write_line(f"{'skipped' if accepted else 'SKIPPED WITHOUT A REASON'}: {test}: {reason}")
