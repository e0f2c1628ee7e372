"""Builds the kernels for lesser processors than this one, so that tests reach the code that those would run."""

import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from codeweft.model.kernels import native

NEEDS = {
    "x86-64": set(),
    "x86-64-v3": {"avx2", "fma", "f16c", "bmi2"},
    "x86-64-v4": {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512cd"},
}


def parameters(*quick: str) -> list[Any]:
    """This processor, then the targets; all but those that are named are slow, as each has to be built."""
    slow = [pytest.param(target, marks=pytest.mark.slow) for target in NEEDS if target not in quick]
    return [pytest.param(None, id="native"), *quick, *slow]


def built_for(target: str | None) -> Iterator[None]:
    """While this generator stands, kernels are those of the target; skips where they cannot be built or run."""
    if target and (reason := why_not(target)):
        pytest.skip(f"toolchain: {reason}")
    with pytest.MonkeyPatch.context() as patch:
        if target:
            patch.setenv(native.TARGET, target)
        forget()
        yield
    forget()


def forget() -> None:
    """Have the libraries looked up anew."""
    native.available.cache_clear()
    native.functions.cache_clear()


def why_not(target: str) -> str | None:
    """None where kernels for the target can be built and run here, else the reason."""
    if platform.machine() not in {"x86_64", "AMD64"}:
        return f"{target} does not run on {platform.machine()}"
    information = Path("/proc/cpuinfo")
    flags = set(information.read_text().split()) if information.is_file() else set()
    if not NEEDS[target] <= flags:
        return f"this processor is no {target}"
    compiler = native.compiler()
    assert compiler is not None, "skip such tests without a compiler"
    command = [compiler, f"-march={target}", "-E", "-x", "c++", "/dev/null"]
    return None if subprocess.run(command, capture_output=True).returncode == 0 else f"the compiler knows no {target}"
