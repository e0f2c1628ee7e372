"""The names of all tasks, and the module each stands in; a module is imported when one of its tasks is asked for.

In:  a name.  Out: its `Task`.
"""

import importlib
from collections.abc import Iterable

from codeweft.base.config import nearest
from codeweft.base.errors import ConfigError
from codeweft.tasks.task import Task

# in the order of the paper's tables
MODULES = {
    "human-eval": "human_eval",
    "human-eval-plus": "human_eval",
    "multipl-e": "multipl_e",
    "mbpp": "mbpp",
    "mbpp-plus": "mbpp",
    "bigcodebench-hard": "bigcodebench",
    "livecodebench": "contests",
    "contests": "contests",
    "katas": "katas.task",
    "repobench-python": "repobench",
    "repobench-java": "repobench",
    "fim-single-line": "infilling",
    "human-eval-infilling": "infilling",
    "human-eval-fix": "human_eval_fix",
    "exercism-edits": "exercism",
    "swe-bench-lite": "predictions",
    "defects4j": "predictions",
    "cruxeval-i": "cruxeval",
    "cruxeval-o": "cruxeval",
    "cruxeval-i-cot": "cruxeval",
    "cruxeval-o-cot": "cruxeval",
    "gsm8k": "mathematics",
    "svamp": "mathematics",
    "math": "mathematics",
    "aime": "mathematics",
    "math-odyssey": "mathematics",
    "bbh": "questions",
    "mmlu": "choices",
    "arc-easy": "choices",
    "arc-challenge": "choices",
    "triviaqa": "questions",
    "natural-questions": "questions",
    "agieval": "choices",
    "cluewsc": "questions",
    "c-eval": "choices",
    "cmmlu": "choices",
    "arena-hard": "open_ended",
    "alpaca-eval": "open_ended",
    "mt-bench": "open_ended",
    "align-bench": "open_ended",
    "needle": "needle",
}


def find(name: str) -> Task:
    """The task of that name; ConfigError names the nearest one."""
    if name not in MODULES:
        raise ConfigError(f"There is no task {name}.", nearest(name, MODULES))
    module = importlib.import_module(f"codeweft.tasks.{MODULES[name]}")
    return next(task for task in module.TASKS if task.name == name)


def find_all(names: Iterable[str]) -> list[Task]:
    """The tasks of some names, in their order."""
    return [find(name) for name in names]
