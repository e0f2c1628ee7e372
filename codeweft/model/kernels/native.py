"""Builds the program's C++ once for this processor, and calls it.

In:  a source such as fused.cpp, the headers beside this file, a C++ compiler.  Out: its functions over tensors.
Unusual: the libraries have a plain C interface and include no header of torch, so that they are built in seconds
instead of a minute and fit every version of torch. Whoever needs one asks `available`, which builds it; nobody else
waits for it.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from codeweft.base.progress import say

HERE = Path(__file__).parent
FUSED = HERE / "fused.cpp"
FLAGS = (
    *("-std=c++17", "-O3", "-fopenmp", "-fPIC", "-shared", f"-I{HERE}"),
    "-ffp-contract=fast",  # products and sums in one instruction
    # errno and traps keep loops from being vectorised; nothing here that would lose a NaN
    *("-fno-math-errno", "-fno-trapping-math"),
)
SUFFIXES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
BUILD_SECONDS = 300  # after which a compiler counts as hanging
# Environment variables.
SWITCH = "CODEWEFT_KERNELS"  # 0 turns the kernels off, to compare or to exclude them
TARGET = "CODEWEFT_KERNELS_FOR"  # a name that -march knows, to build for a lesser processor than this one


@cache
def compiler() -> str | None:
    """The C++ compiler: $CXX, else c++, g++ or clang++ from the path; None where there is none."""
    named = os.environ.get("CXX")
    return next(
        (found for name in ([named] if named else ["c++", "g++", "clang++"]) if (found := shutil.which(name))), None
    )


def cache_folder() -> Path:
    """Where built libraries are kept: `codeweft/kernels` in $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "codeweft" / "kernels"


@cache
def available(source: Path = FUSED, without: str = "training goes on with torch alone, slower") -> bool:
    """Whether a source's functions can be called; builds it at the first question.

    Where it cannot, says why, and `without` what that means.
    """
    if os.environ.get(SWITCH) == "0":
        say(f"{SWITCH}=0: {without}.")
        return False
    if compiler() is None:
        say(f"no C++ compiler was found: {without} (install g++, or set CXX).")
        return False
    try:
        functions(source)
    except (OSError, subprocess.SubprocessError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        say(f"{source.name} could not be built with {compiler()}: {without}.\n  {lines[0]}")
        return False
    return True


@cache
def functions(source: Path = FUSED) -> ctypes.CDLL:
    """The loaded library, from the cache where the same source was built for the same processor and target."""
    command = compiler()
    assert command is not None, "ask `available` first"
    version = subprocess.run([command, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    texts = [path.read_text() for path in (source, *sorted(HERE.glob("*.h")))]
    target = os.environ.get(TARGET) or "native"
    flags = [flag for flag in FLAGS if not flag.startswith("-I")]
    processor = _processor() if target == "native" else ""
    about = (*texts, version, *flags, target, platform.machine(), processor, torch.__version__)
    path = cache_folder() / f"{hashlib.blake2b(repr(about).encode(), digest_size=12).hexdigest()}.so"
    if not path.is_file():
        say(f"building {source.name} for {'this processor' if target == 'native' else target}, once; some seconds.")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            build = [command, *FLAGS, f"-march={target}", str(source), "-o", str(partial)]
            subprocess.run(build, capture_output=True, text=True, check=True, timeout=BUILD_SECONDS)
            partial.replace(path)  # whole or absent, also when two processes build at once
        finally:
            partial.unlink(missing_ok=True)
    return ctypes.CDLL(str(path))


def _processor() -> str:
    """What -march=native depends on: a cache in a shared home folder must not hand one processor another's code."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        lines = information.read_text().splitlines()
        return "".join(next((line for line in lines if line.startswith(key)), "") for key in ("model name", "flags"))
    return platform.processor()


def call(name: str, dtype: torch.dtype, *arguments: Tensor | int | float | None) -> None:
    """Call a kernel for `dtype`: tensors by address (they must be contiguous), None as null, then the threads."""
    given = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            assert argument.is_contiguous(), f"{name} takes contiguous tensors"
            given.append(ctypes.c_void_p(argument.data_ptr()))
        elif argument is None:
            given.append(ctypes.c_void_p(None))
        else:
            given.append(ctypes.c_float(argument) if isinstance(argument, float) else ctypes.c_int64(argument))
    getattr(functions(), f"{name}_{SUFFIXES[dtype]}")(*given, ctypes.c_int(torch.get_num_threads()))
