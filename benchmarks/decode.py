"""Decoding speed beside transformers and llama.cpp: tokens a second, prompts, an edited prompt, memory.

In:  nothing; in LLAMA_CPP the folder with llama.cpp's binaries (llama-bench, llama-batched-bench), else that side is
left out, and in LLAMA_VERSION which one it is. `small` and `lite` (4 layers of DeepSeek-Coder-V2-Lite's shape) need
16 GB of disk for their folders, `whole` (its full shape in 4 bits) 20 GB more.
Out: benchmarks/results/decode.json and, from it alone, docs/results/decode.md.

Same on all sides: shapes, types of weights, two threads, 128 tokens drawn greedily, one warm-up before what is timed;
each variant in fresh processes, sides in turn, `REPEATS` times, medians. transformers and codeweft get the same folder
and draw behind 128-token prompts of random ids (other ones in each row: equal rows would share experts), sampler and
stopping included. llama.cpp gets the same weights as GGUF (`codeweft model export`) and draws behind as many tokens;
its benchmarks draw no token by chance and stop nothing, which is less work. The whole shape draws 48 tokens behind one,
after a prompt of 1,024 random tokens, which meets every expert: its memory is that of a model in full use. Weights are
random: rows of a batch meet experts as if they were independent, but one row drawn greedily goes in circles and meets
fewer of them. Guessing by look-up is off: on random text it would only cost.

`shapes NAME...` (or `NAME:TYPE`) measures some only and keeps the others' results; `quality FOLDER TEXT...` what 8 and
4 bits do to a trained model's predictions; `page` writes the page anew.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from common.decode_page import LITE_TYPES, RESULTS, Row, shortfalls, write_page
from common.small import SMALL, Endless

from codeweft.base.runs import machine
from codeweft.engine.engine import Engine
from codeweft.engine.request import Request
from codeweft.tokenizer.load import load_tokenizer

ROOT = Path(__file__).parents[1]
LLAMA = Path(os.environ["LLAMA_CPP"]) if os.environ.get("LLAMA_CPP") else None
REPEATS, THREADS = 3, 2
PROMPT, DRAWN, LONG_PROMPT, EDITED_PROMPT, WHOLE_DRAWN = 128, 128, 512, 2000, 48
IDS = range(300, 8000)  # of random prompts: none is special
# by shape: arguments of `codeweft model init`, and the types it is measured in
SHAPES: dict[str, dict[str, Any]] = {
    "small": {"types": ("float32",)},
    "lite": {"layers": 4, "types": LITE_TYPES},
    "whole": {"layers": 27, "types": ("4 bits",)},
}
# transformers' implementations of experts that run at the shape
EXPERTS = {
    ("small", 1): ("eager", "grouped_mm", "batched_mm"), ("small", 8): ("eager", "grouped_mm", "batched_mm"),
    ("lite", 1): ("eager", "grouped_mm"), ("lite", 8): ("eager", "grouped_mm"),
}  # fmt: skip


# --- one process each ------------------------------------------------------------------------------------------------


def prompts(rows: int, length: int, seed: int = 1) -> list[list[int]]:
    """Random token ids, other ones in each row."""
    chance = torch.Generator().manual_seed(seed)
    return torch.randint(IDS.start, IDS.stop, (rows, length), generator=chance).tolist()


def peak() -> float:
    """GiB that this process held at most, mapped pages included."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20), 2)


def ours(folder: str, dtype: str, batch: int) -> Row:
    """Our engine: decoding and prompts; the edited prompt at batch 1."""
    began = time.perf_counter()
    kind = torch.float32 if dtype == "float32" else torch.bfloat16
    engine = Engine.load(Path(folder), dtype=kind, rows=batch, max_length=4096, guess=0)
    engine.tokenizer = Endless(load_tokenizer(Path(folder)))  # ty: ignore[invalid-assignment]
    found = {"open_seconds": round(time.perf_counter() - began, 2)}

    def run(texts: list[list[int]], drawn: int) -> tuple[float, float]:
        """Seconds until all have their first token, and from there to the end."""
        waiting = {engine.submit(Request(tuple(text), max_tokens=drawn)) for text in texts}
        start, first = time.perf_counter(), 0.0
        while engine.busy:
            waiting -= {piece.request for piece in engine.step()}
            if not waiting and not first:
                first = time.perf_counter()
        return first - start, time.perf_counter() - first

    run(prompts(batch, 64, 0), 16)
    _, seconds = run(prompts(batch, PROMPT), DRAWN)
    found["decode"] = batch * (DRAWN - 1) / seconds
    if batch == 1:
        found["prompt"] = LONG_PROMPT / run(prompts(1, LONG_PROMPT, 2), 1)[0]
        [text] = prompts(1, EDITED_PROMPT, 3)
        found["cold"] = run([text], 1)[0]
        text[EDITED_PROMPT - 20] += 1
        found["edited"] = run([text], 1)[0]
    return found | {"peak": peak()}


def theirs(folder: str, dtype: str, batch: int, experts: str) -> Row:
    """The generate method of transformers."""
    from transformers import DeepseekV2ForCausalLM

    kind = torch.float32 if dtype == "float32" else torch.bfloat16
    model = DeepseekV2ForCausalLM.from_pretrained(folder, dtype=kind, experts_implementation=experts).eval()

    def run(texts: list[list[int]], drawn: int) -> float:
        ids = torch.tensor(texts)
        began = time.perf_counter()
        with torch.inference_mode():
            model.generate(
                ids, attention_mask=torch.ones_like(ids), min_new_tokens=drawn, max_new_tokens=drawn, do_sample=False
            )
        return time.perf_counter() - began

    run(prompts(batch, 64, 0), 16)
    first = run(prompts(batch, PROMPT), 1)
    found = {"decode": batch * (DRAWN - 1) / (run(prompts(batch, PROMPT), DRAWN) - first)}
    if batch == 1:
        found["prompt"] = LONG_PROMPT / run(prompts(1, LONG_PROMPT, 2), 1)
    return found | {"peak": peak()}


def in_whole_memory(folder: str) -> Row:
    """The full shape with room for 32K of context: opening, memory after every weight was used, tokens a second."""
    began = time.perf_counter()
    engine = Engine.load(Path(folder), dtype=torch.bfloat16, rows=1, max_length=32768, guess=0)
    opened = time.perf_counter() - began
    held = float(engine.max_length)
    engine.generate([Request(tuple(prompts(1, 1024, 0)[0]), max_tokens=8)])
    began = time.perf_counter()
    [completion] = engine.generate([Request(tuple(prompts(1, 1)[0]), max_tokens=WHOLE_DRAWN)])
    speed = len(completion.tokens) / (time.perf_counter() - began)
    return {"open_seconds": round(opened, 2), "context": held, "decode": speed, "peak": peak(), "read_before": 1024}


SIDES: dict[str, Callable[..., Row]] = {"ours": ours, "theirs": theirs, "whole": in_whole_memory}


def by_llama(gguf: Path, batch: int, drawn: int) -> Row:
    """llama.cpp's own benchmarks; prompts at batch 1, but not of the whole shape."""
    assert LLAMA is not None
    if batch == 1:
        behind = PROMPT if drawn == DRAWN else 0
        asked = [["-p", "0", "-n", str(drawn), "-d", str(behind)]]
        asked += [["-p", str(LONG_PROMPT), "-n", "0"]] if behind else []
        found: Row = {}
        for words in asked:
            command = [str(LLAMA / "llama-bench"), "-m", str(gguf), "-t", str(THREADS), *words, "-r", "1", "-o", "json"]
            for row in json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout):
                found["prompt" if row["n_prompt"] else "decode"] = row["avg_ts"]
                found["build"] = row["build_number"]
        return found
    words = ["-npp", str(PROMPT), "-ntg", str(DRAWN), "-npl", str(batch), "-c", "4096", "--output-format", "jsonl"]
    command = [str(LLAMA / "llama-batched-bench"), "-m", str(gguf), "-t", str(THREADS), *words]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    [row] = [json.loads(line) for line in lines if line.startswith("{")]
    return {"decode": row["speed_tg"]}


# --- folders ---------------------------------------------------------------------------------------------------------


def codeweft(*words: str) -> None:
    """Run a command of ours."""
    subprocess.run([sys.executable, "-m", "codeweft", *words], check=True)


def tokenizer_into(folder: Path) -> Path:
    """A small tokenizer: prompts are random ids, and texts are not looked at."""
    sys.path.insert(0, str(ROOT / "tests"))
    from tiny_model import make_tokenizer

    make_tokenizer(folder)
    return folder


@contextmanager
def kept_folders() -> Iterator[Path]:
    """Where models are made: in DECODE_FOLDERS they stay for the next run, else they are removed."""
    if named := os.environ.get("DECODE_FOLDERS"):
        yield Path(named)
    else:
        with tempfile.TemporaryDirectory(prefix="codeweft-decode-") as name:
            yield Path(name)


def make_folder(shape: str, dtype: str, within: Path) -> Path:
    """A model folder of random weights."""
    folder = within / f"{shape}-{dtype.replace(' ', '-')}"
    if (folder / "config.json").exists():
        return folder
    tokenizer = tokenizer_into(within / "tokenizer")
    if shape == "small":
        from codeweft.model.config import ModelConfig
        from codeweft.model.folder import save_folder
        from codeweft.model.transformer import Transformer

        model = Transformer(ModelConfig(**SMALL | {"max_position_embeddings": 4096}))
        model.init_weights(0.02, torch.Generator().manual_seed(0))
        save_folder(model, folder, dtype=torch.float32, extra_files=list(tokenizer.glob("tokenizer*")))
        return folder
    words = ["--shape", "lite", "--layers", str(SHAPES[shape]["layers"]), "--tokenizer", str(tokenizer)]
    bits = ["--bits", dtype.split()[0]] if "bits" in dtype else []
    codeweft("model", "init", *words, *bits, "--out", str(folder))
    return folder


def fresh(*words: str) -> Row:
    """What a process of its own prints."""
    command = [sys.executable, __file__, *words]
    environment = dict(os.environ) | {"OMP_NUM_THREADS": str(THREADS)}
    finished = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(finished.stdout.splitlines()[-1])


def variants(shape: str, dtype: str, folder: Path, batch: int) -> dict[str, Callable[[], Row]]:
    """What is measured of a folder, by name."""
    way = ("measure", "whole", str(folder)) if shape == "whole" else ("measure", "ours", str(folder), dtype, str(batch))
    found: dict[str, Callable[[], Row]] = {"codeweft": lambda: fresh(*way)}
    if shape != "whole" and "bits" not in dtype:
        for experts in EXPERTS[shape, batch]:
            words = ("measure", "theirs", str(folder), dtype, str(batch), experts)
            found[f"transformers, {experts}"] = lambda words=words: fresh(*words)
    if LLAMA is not None and shape != "small":
        gguf = folder.with_suffix(".gguf")
        if not gguf.exists():
            codeweft("model", "export", str(folder), "--gguf", str(gguf))
        found["llama.cpp"] = lambda: by_llama(gguf, batch, WHOLE_DRAWN if shape == "whole" else DRAWN)
    return found


def measured(shape: str, types: tuple[str, ...]) -> dict[str, Any]:
    """All batches of a shape in these types: the rows of each variant, sides in turn."""
    found: dict[str, Any] = {}
    for dtype in types:
        with kept_folders() as within:
            folder = make_folder(shape, dtype, within)
            for batch in (1,) if shape == "whole" else (1, 8):
                sides = variants(shape, dtype, folder, batch)
                rows: dict[str, list[Row]] = {side: [] for side in sides}
                for _ in range(REPEATS):
                    for side, run in sides.items():
                        rows[side].append(run())
                        print(f"{shape}, {dtype}, batch {batch}, {side}: {rows[side][-1]}", flush=True)
                found[f"{dtype}, batch {batch}"] = rows
    return found


def quality(folder: str, texts: list[str]) -> dict[str, Any]:
    """By bits, what quantising a trained model changes in what it predicts of texts that it was not trained on."""
    found = {}
    for bits in ("8", "4"):
        with tempfile.TemporaryDirectory(prefix="codeweft-quality-") as name:
            words = [
                "model",
                "quantize",
                folder,
                "--bits",
                bits,
                "--out",
                f"{name}/model",
                "--json",
                "--report",
                *texts,
            ]
            command = [sys.executable, "-m", "codeweft", *words]
            shown = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            found[f"{bits} bits"] = json.loads(shown)["quality"]
    return found


# --- results ---------------------------------------------------------------------------------------------------------


def earlier() -> dict[str, Any]:
    """The results so far."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {"shapes": {}, "load": {}}


def keep(table: dict[str, Any]) -> None:
    """Results and page."""
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(table, indent=2) + "\n")
    write_page(table)


def main(names: list[str]) -> None:
    """Measure shapes; write the results after each; hold them to the bars."""
    table = earlier()
    table["versions"] = {"transformers": version("transformers"), "llama.cpp": os.environ.get("LLAMA_VERSION", "")}
    table["machine"] = machine() | {"torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability()}
    for name in names:
        shape, _, dtype = name.partition(":")
        load = round(os.getloadavg()[0], 1)
        found = measured(shape, (dtype,) if dtype else SHAPES[shape]["types"])
        table["shapes"][shape] = table["shapes"].get(shape, {}) | found
        table["load"][shape] = [load, round(os.getloadavg()[0], 1)]
        keep(table)
    if missed := shortfalls(table["shapes"]):
        sys.exit("\n".join(missed))


if __name__ == "__main__":
    if sys.argv[1:] == ["page"]:
        write_page(json.loads(RESULTS.read_text()))
    elif sys.argv[1:2] == ["measure"]:
        side, folder, *words = sys.argv[2:]
        torch.set_num_threads(THREADS)
        given = [int(word) if word.isdigit() else word for word in words]
        print(json.dumps(SIDES[side](folder, *given)))
    elif sys.argv[1:2] == ["quality"]:
        trained, *texts = sys.argv[2:]
        keep(earlier() | {"quality": quality(trained, texts), "trained": Path(trained).parents[1].name})
    elif sys.argv[1:2] == ["shapes"]:
        main(sys.argv[2:])
    else:
        main(list(SHAPES))
