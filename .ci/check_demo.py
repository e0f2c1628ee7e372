"""Checks what `make demo` left: every stage finished, every headline key there, time and memory within the budget.

In:  a run folder.  Out: exit 0, or 1 with what is wrong.
"""

import sys
from pathlib import Path

from codeweft.base.artifacts import read_manifest
from codeweft.stages import STAGES

HEADLINES = {
    "corpus": {"kept_fraction", "documents"},
    "problems": {"problems", "conversations"},
    "tokenizer": {"bytes_per_token"},
    "tokens": {"tokens", "code_share", "math_share", "text_share"},
    "pretrain": {
        "bits_per_byte", "bits_per_byte_5gram", "fim_exact_match", "fim_exact_match_copy", "tokens_per_second",
    },
    "sft": {"katas_pass@1_before", "katas_pass@1_after", "fim_exact_match_before", "fim_exact_match_after"},
    "reward": {"pair_accuracy", "auc", "visible_test_accuracy"},
    "grpo": {
        "katas_pass@1_before", "katas_pass@1_after", "katas_unseen_families_before", "katas_unseen_families_after",
        "fim_exact_match_after", "seconds_per_step",
    },
    "evaluate": {"katas_pass@1", "katas_unseen_families", "katas_nearest"},
}  # fmt: skip
# The budget is 1,440 on two quiet cores; half as much again for others and for processors that multiply in float32.
CPU_SECONDS, MEMORY = 2160, 4 * 2**30


def faults(run_folder: Path) -> list[str]:
    """Every fault found, as sentences."""
    found, seconds = [], 0.0
    for stage in STAGES:
        manifest = read_manifest(run_folder / stage.name)
        if manifest is None:
            found.append(f"{stage.name} is not finished.")
            continue
        seconds += manifest.cpu_seconds
        missing = HEADLINES.get(stage.name, set()) - set(manifest.headline)
        if missing:
            found.append(f"{stage.name} lacks the headline figures {sorted(missing)}.")
        if manifest.peak_rss_bytes > MEMORY:
            found.append(f"{stage.name} used {manifest.peak_rss_bytes / 2**30:.2f} GiB.")
    if seconds > CPU_SECONDS:
        found.append(f"The run took {seconds:.0f} CPU seconds; {CPU_SECONDS} are allowed.")
    if not (run_folder / "report.html").exists():
        found.append("There is no report.html.")
    return found


if __name__ == "__main__":
    problems = faults(Path(sys.argv[1]))
    print("\n".join(problems) or "The demonstration is complete.")
    sys.exit(bool(problems))
