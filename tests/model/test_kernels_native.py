"""Building the kernels: once, for the processor that is asked for, and what is said where that cannot be done."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import kernel_targets
import pytest

from codeweft.model.kernels import native

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="toolchain: no C++ compiler")
BUILD = "from codeweft.model.kernels import native; print(native.available())"
TINY = 'extern "C" int lanes() {\n#if defined(__AVX2__)\n  return 8;\n#else\n  return 4;\n#endif\n}\n'


def build(**environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BUILD]
    return subprocess.run(command, env=dict(os.environ) | environment, capture_output=True, text=True, check=True)


def test_a_library_is_built_once_and_found_again(tmp_path: Path):
    assert build(XDG_CACHE_HOME=str(tmp_path)).stdout == "True\n"
    (library,) = (tmp_path / "codeweft" / "kernels").iterdir()
    written = library.stat().st_mtime_ns
    assert build(XDG_CACHE_HOME=str(tmp_path)).stdout == "True\n"
    assert [library] == list((tmp_path / "codeweft" / "kernels").iterdir())
    assert library.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"CXX": "no-such-compiler"}, "no C++ compiler was found"),
        ({"CXX": "false"}, "could not be built with"),
        ({"CODEWEFT_KERNELS": "0"}, "torch alone"),
    ],
)
def test_without_a_library_training_uses_torch_and_says_so(environment: dict[str, str], said: str, tmp_path: Path):
    finished = build(XDG_CACHE_HOME=str(tmp_path), **environment)
    assert finished.stdout == "False\n"
    assert said in finished.stderr


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A source that tells what it was built for, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "tiny.cpp"
    source.write_text(TINY)
    yield source
    kernel_targets.forget()


def test_every_target_has_a_library_of_its_own(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    for target, lanes in (("x86-64", 4), ("x86-64-v3", 8), ("x86-64", 4)):
        if reason := kernel_targets.why_not(target):
            pytest.skip(f"toolchain: {reason}")
        monkeypatch.setenv(native.TARGET, target)
        kernel_targets.forget()
        assert native.functions(tiny).lanes() == lanes
    assert len(list(native.cache_folder().iterdir())) == 2


def test_a_target_that_no_compiler_knows_is_said(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv(native.TARGET, "no-such-processor")
    kernel_targets.forget()
    assert not native.available(tiny)
    assert "no-such-processor" in capsys.readouterr().err
