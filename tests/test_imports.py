"""What may be imported where: a bare GPU image must run training and decoding, and --help must be quick."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ALLOWED = {"codeweft", "torch", "numpy", "safetensors", "tokenizers", "pyarrow", "jinja2", "rich"}
ROOMS = [room for room in ("base", "tokenizer", "model", "train", "engine", "sandbox", "tasks", "rl")]
PACKAGE = Path(__file__).parents[1] / "codeweft"

# Refuses, at import time, whatever one of our own modules asks for that is neither standard nor allowed.
BLOCKER = """
import importlib.abc, importlib, sys, json
allowed = set(json.loads(sys.argv[1]))
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.split('.')[0]
        caller = sys._getframe(1)
        while caller and 'importlib' in caller.f_code.co_filename:
            caller = caller.f_back
        ours = caller is not None and caller.f_globals.get('__name__', '').startswith('codeweft')
        if ours and top not in allowed and top not in sys.stdlib_module_names:
            raise ImportError(f'{caller.f_globals["__name__"]} imports {name}')
        return None
sys.meta_path.insert(0, Blocker())
for module in json.loads(sys.argv[2]):
    importlib.import_module(module)
"""


def modules(room: str) -> list[str]:
    """Dotted names of a room's modules."""
    paths = sorted((PACKAGE / room).rglob("*.py"))
    return [".".join(("codeweft", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in paths]


def run_blocked(names: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKER, json.dumps(sorted(ALLOWED)), json.dumps(names)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_rooms_of_training_and_decoding_import_on_a_bare_gpu_image():
    names = [name for room in ROOMS if (PACKAGE / room).is_dir() for name in modules(room)]
    assert len(names) > 20
    finished = run_blocked(names)
    assert finished.returncode == 0, finished.stderr


def test_the_blocker_itself_catches_a_forbidden_import():
    assert "ImportError: codeweft.serve.app imports " in run_blocked(["codeweft.serve.app"]).stderr


@pytest.mark.parametrize("room", ["train", "tokenizer", "corpus", "rl", "evaluate", "serve", "report", "sandbox"])
def test_a_rooms_config_needs_no_torch(room: str):
    code = f"import codeweft.{room}.config, sys; assert 'torch' not in sys.modules and 'pyarrow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
