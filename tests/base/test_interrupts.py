"""An interrupt that Python drops in a callback ends the program all the same."""

import subprocess
import sys

SCRIPT = """
import gc, os, signal, time, weakref
from codeweft.base.interrupts import interrupts_kept

signal.signal(signal.SIGINT, signal.default_int_handler)  # a test in the background may have been born deaf to it
class Thing: pass

def pressed(reference):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)  # the interrupt is raised in here

with {keeping}:
    thing = Thing()
    watched = weakref.ref(thing, pressed)
    del thing
    time.sleep(2)
print("went on")
"""


def ended(keeping: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT.replace("{keeping}", keeping)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_dropped_interrupt_comes_again():
    finished = ended("interrupts_kept()")
    assert "went on" not in finished.stdout
    assert finished.stderr.rstrip().endswith("KeyboardInterrupt")
    assert "Exception ignored" not in finished.stderr


def test_without_it_python_goes_on():
    """Else the first test would show nothing."""
    assert "went on" in ended("__import__('contextlib').nullcontext()").stdout
