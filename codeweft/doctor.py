"""Looks at this machine and says what works, what is missing and how to get it.

In:  nothing.  Out: a list of findings, each {what, ok, optional, detail}.
"""

import importlib.util
import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

# package -> (import name, what it is for, extra that installs it; empty where the program cannot start without it)
PACKAGES = {
    "torch": ("torch", "training and inference", ""),
    "tokenizers": ("tokenizers", "text to ids", ""),
    "safetensors": ("safetensors", "weights", ""),
    "pyarrow": ("pyarrow", "documents", ""),
    "numpy": ("numpy", "everything that counts", ""),
    "jinja2": ("jinja2", "chat templates and the report", ""),
    "rich": ("rich", "progress bars", ""),
    "daft": ("daft", "near-duplicates in the corpus stage", "curate"),
    "scipy": ("scipy", "clusters of near-duplicates", "curate"),
    "dulwich": ("dulwich", "git repositories as sources", "curate"),
    "enry-python": ("enry", "languages of ambiguous files", "curate"),
    "sympy": ("sympy", "mathematical prose among the built-in sources", "curate"),
    "tree-sitter": ("tree_sitter", "infilling cuts at syntax nodes", "curate"),
    "fastapi": ("fastapi", "the server", "serve"),
    "uvicorn": ("uvicorn", "the server", "serve"),
    "gguf": ("gguf", "exports for llama.cpp", "export"),
    "matplotlib": ("matplotlib", "the report's plots", "report"),
    "tensorboard": ("tensorboard", "metrics in TensorBoard", "track"),
    "rapidfuzz": ("rapidfuzz", "edit similarity in evaluation", "eval"),
}


def examine() -> list[dict[str, Any]]:
    """Check Python, packages, cores, memory, disk and GPU."""
    findings = [
        _finding("Python", sys.version_info >= (3, 11), sys.version.split()[0] + " (3.11 or newer is needed)"),
        *(_package(name, *facts) for name, facts in PACKAGES.items()),
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    free = shutil.disk_usage(".").free / 2**30
    findings.append(_finding("cores", True, f"{len(os.sched_getaffinity(0))}"))
    findings.append(_finding("memory", memory >= 4, f"{memory:.0f} GiB (the toy recipe needs 4)"))
    findings.append(
        _finding("disk here", free >= 2, f"{free:.0f} GiB free (the installation and the toy recipe need 4)")
    )
    names = [os.environ["CXX"]] if "CXX" in os.environ else ["c++", "g++", "clang++"]
    compiler = next((found for name in names if (found := shutil.which(name))), None)
    detail = compiler or "none found: training on a processor is slower without (install g++)"
    findings.append(_finding("C++ compiler", compiler is not None, detail, optional=True))
    findings.append(_sandbox())
    findings.append(_gpu())
    return findings


def _finding(what: str, ok: bool, detail: str, optional: bool = False) -> dict[str, Any]:
    return {"what": what, "ok": ok, "optional": optional, "detail": detail}


def _package(name: str, module: str, purpose: str, extra: str) -> dict[str, Any]:
    present = importlib.util.find_spec(module) is not None
    if not present:
        remedy = f"pip install 'codeweft[{extra}]'" if extra else "pip install codeweft"
        return _finding(name, False, f"for {purpose}: {remedy}", optional=bool(extra))
    try:
        return _finding(name, True, version(name), optional=bool(extra))
    except PackageNotFoundError:
        return _finding(name, True, "installed", optional=bool(extra))


def _sandbox() -> dict[str, Any]:
    from codeweft.sandbox.wall import bubblewrap

    program = bubblewrap() if sys.platform == "linux" else None
    remedy = "for running generated code: install bubblewrap (apt install bubblewrap, dnf install bubblewrap)"
    if sys.platform != "linux":
        remedy = "generated code is run on Linux only, or by a service there (--sandbox.tier=remote)"
    detail = f"{program} (codeweft sandbox probe tries it)" if program else remedy
    return _finding("sandbox", program is not None, detail, optional=True)


def _gpu() -> dict[str, Any]:
    if importlib.util.find_spec("torch") is None:
        return _finding("GPU", False, "unknown without torch", optional=True)
    import torch

    if torch.cuda.is_available():
        return _finding("GPU", True, torch.cuda.get_device_name(), optional=True)
    return _finding("GPU", False, "none found: the CPU is used", optional=True)
