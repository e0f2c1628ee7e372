"""The results of decode.py held to their bars, and as a page.

In:  benchmarks/results/decode.json.  Out: docs/results/decode.md, from the JSON alone; what was missed, in words.
"""

import statistics
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results" / "decode.json"
PAGE = Path(__file__).parents[2] / "docs" / "results" / "decode.md"
LITE_TYPES = ("4 bits", "8 bits", "bfloat16")  # of weights, in which the Lite shape is measured
Row = dict[str, float]  # tokens a second, seconds and GiB of one process, by name


def median(rows: list[Row], key: str) -> float:
    """Of the repeats that have it; 0 where none has."""
    known = [row[key] for row in rows if key in row]
    return statistics.median(known) if known else 0.0


def best_of(rows: dict[str, list[Row]], peer: str, key: str) -> float:
    """The median of a peer's quickest variant; 0 where it was not measured."""
    return max((median(found, key) for name, found in rows.items() if name.startswith(peer)), default=0.0)


def bars(results: dict[str, Any]) -> list[tuple[str, float, float, float]]:
    """Each bar: what, the ratio reached, at least, aim. transformers has no 4 bits: its bfloat16 stands beside."""
    found = []

    def ratio(what: str, shape: str, ours_at: str, theirs_at: str, peer: str, least: float, **more: Any) -> None:
        key, aim = more.get("key", "decode"), more.get("aim", least)
        rows, others = results.get(shape, {}).get(ours_at), results.get(shape, {}).get(theirs_at)
        if rows and others and best_of(others, peer, key):
            found.append((what, median(rows["codeweft"], key) / best_of(others, peer, key), least, aim))

    for batch in (1, 8):
        name = f"float32, batch {batch}"
        ratio(f"small, batch {batch}: transformers", "small", name, name, "transformers", 2.5, aim=5.0)
    for dtype in LITE_TYPES:
        name = f"{dtype}, batch 1"
        ratio(f"Lite, {dtype}, batch 1: llama.cpp", "lite", name, name, "llama.cpp", 1.0)
        ratio(f"Lite, {dtype}, prompts: llama.cpp", "lite", name, name, "llama.cpp", 0.0, key="prompt", aim=1.0)
        plain = "bfloat16, batch 1"
        ratio(f"Lite, {dtype}, prompts: transformers", "lite", name, plain, "transformers", 1.0, key="prompt")
    for batch, dtype, least in ((1, "bfloat16", 2.0), (8, "bfloat16", 2.0), (8, "4 bits", 4.0)):
        ours_at, theirs_at = f"{dtype}, batch {batch}", f"bfloat16, batch {batch}"
        ratio(f"Lite, {dtype}, batch {batch}: transformers", "lite", ours_at, theirs_at, "transformers", least)
    name = "4 bits, batch 1"
    ratio("whole shape, 4 bits: llama.cpp", "whole", name, name, "llama.cpp", 1.0)
    return found


def limits(results: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Each limit: what, what was measured, at most."""
    found = []
    for shape, name in (("small", "float32, batch 1"), ("lite", "4 bits, batch 1")):
        rows = results.get(shape, {}).get(name, {}).get("codeweft")
        if rows:
            share = median(rows, "edited") / median(rows, "cold")
            found.append((f"{shape}: first token of an edited prompt, share of the cold one", share, 0.1))
    whole = results.get("whole", {}).get("4 bits, batch 1", {}).get("codeweft")
    if whole:
        found.append(("whole shape: seconds to open", median(whole, "open_seconds"), 60.0))
        touched = "every weight in use" if "read_before" in whole[0] else "48 tokens drawn, not all weights touched"
        found.append((f"whole shape: GiB resident at most, {touched}, room for 32K", median(whole, "peak"), 12.0))
    return found


def shortfalls(results: dict[str, Any]) -> list[str]:
    """In words, what was missed."""
    missed = [f"{what}: {ratio:.2f} times, not {least}." for what, ratio, least, _ in bars(results) if ratio < least]
    return missed + [f"{what}: {value:.2f}, not {most}." for what, value, most in limits(results) if value > most]


def write_page(table: dict[str, Any]) -> None:
    """The results as docs/results/decode.md, from the JSON alone."""
    facts = ", ".join(f"{key} {value}" for key, value in table["machine"].items())
    lines = ["# Decoding beside transformers and llama.cpp", "", f"Machine: {facts}."]
    versions = ", ".join(f"{name} {told}" for name, told in table.get("versions", {}).items() if told)
    lines += [f"The last run stood beside {versions or 'versions that were not recorded'}."]
    lines += ["Shapes and types are measured in runs of their own: what the last did not repeat is of earlier ones."]
    lines += ["Made by `benchmarks/decode.py`, which says what is the same on all sides; do not edit.", ""]
    lines += ["| tokens a second, ours over theirs | times | at least | aim |", "|---|---|---|---|"]
    for what, ratio, least, aim in bars(table["shapes"]):
        told = f"{least:g}" if least else ""
        lines.append(f"| {what} | {ratio:.2f} | {told} | {aim:g} |")
    lines += ["", "| | measured | at most |", "|---|---|---|"]
    lines += [f"| {what} | {value:.3g} | {most:g} |" for what, value, most in limits(table["shapes"])]
    for shape, found in table["shapes"].items():
        load = ", ".join(map(str, table["load"].get(shape, [])))
        lines += ["", f"## {shape}", "", f"Load average before and after: {load}.", ""]
        lines += ["| type, batch | side | tokens/s drawn | repeats | prompt tokens/s | peak GiB |", "|---" * 6 + "|"]
        for name, rows in found.items():
            for side, each in rows.items():
                repeats = ", ".join(f"{row['decode']:.1f}" for row in each)
                prompt, drawn = median(each, "prompt"), median(each, "decode")
                read = f"{prompt:.0f}" if prompt else ""
                lines.append(f"| {name} | {side} | {drawn:.1f} | {repeats} | {read} | {median(each, 'peak') or ''} |")
    if known := table.get("quality"):
        about = next(iter(known.values()))
        lines += ["", "## What fewer bits change in a trained model", ""]
        what = f"{about['tokens']} tokens of held-out text, {about['precision']} products"
        lines += [f"The model of the run {table['trained']}: {what}.", ""]
        lines += ["| weights | bits per byte | as stored before | same first choice | divergence, bits a token |"]
        lines += ["|---" * 5 + "|"]
        for bits, each in known.items():
            before, after = each["bits_per_byte_reference"], each["bits_per_byte"]
            agreed, apart = each["greedy_agreement"], each["divergence_bits_per_token"]
            lines.append(f"| {bits} | {after:.4f} | {before:.4f} | {100 * agreed:.1f} % | {apart:.4f} |")
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join(lines) + "\n")
