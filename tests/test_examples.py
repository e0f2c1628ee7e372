"""The examples run as they stand."""

import subprocess
import sys
from pathlib import Path

import tiny_model

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_infilling_example_runs_on_any_model_folder(tmp_path: Path):
    folder = tiny_model.make_folder(tmp_path / "model")
    command = [sys.executable, str(EXAMPLES / "infill.py"), str(folder)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.endswith("\n")
