"""`codeweft model …` as a person meets it: facts, folders, and mistakes told in a line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from safetensors.torch import load_file, save_file

from codeweft.base.artifacts import digest_file
from codeweft.cli import main
from codeweft.engine.engine import Engine
from codeweft.engine.request import Request
from codeweft.model import agreement
from codeweft.model.agreement import agree
from codeweft.model.folder import load_folder, read_config
from codeweft.model.quantize import Quantization

WIDE: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32, "kv_lora_rank": 32}
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make_folder(tmp_path_factory.mktemp("model") / "plain", **WIDE)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run words that must succeed; their JSON, or their text."""

    def act(*words: Any, code: int = 0) -> Any:
        capsys.readouterr()
        assert main(["model", *map(str, words)]) == code
        shown = capsys.readouterr()
        return json.loads(shown.out) if "--json" in words else shown.out if code == 0 else shown.err or shown.out

    return act


def test_info_counts_what_the_folder_holds_and_needs(plain: Path, run: Run):
    facts = run("info", plain, "--context", "100", "--json")
    weights = load_file(plain / "model.safetensors")
    assert facts["parameters"] == sum(each.numel() for each in weights.values())
    assert facts["on_disk_bytes"] == (plain / "model.safetensors").stat().st_size
    assert facts["cache_per_token_bytes"] == 3 * (32 + 8) * 2
    assert facts["cache_at_context_bytes"] == 100 * facts["cache_per_token_bytes"]
    assert facts["memory_at_context_bytes"] > facts["on_disk_bytes"] + facts["cache_at_context_bytes"]
    assert facts["infills"] == "yes"
    assert facts["weights"] == "float32"
    assert run("info", plain, "--context", "1000k", "--json")["context"] == tiny_model.WINDOW
    assert "activated parameters" in run("info", plain)


def test_quantising_serving_and_verifying_a_folder(plain: Path, run: Run, tmp_path: Path):
    out = tmp_path / "q"
    facts = run("quantize", plain, "--out", out, "--bits", 8, "--json")
    assert facts["bytes_after"] < facts["bytes_before"] / 2
    assert run("info", out, "--json")["weights"] == "8 bits, head 8 bits, rest bfloat16"
    assert "wrong" not in run("verify", out)
    engine = Engine.load(out)
    [completion] = engine.generate([Request(engine.prompt("def add(a, b):"), max_tokens=8)])
    assert 1 <= len(completion.tokens) <= 8


def test_a_report_says_what_quantisation_costs(plain: Path, run: Run, tmp_path: Path):
    text, out = tmp_path / "text.py", tmp_path / "q"
    text.write_text(Path(__file__).read_text()[:3000])
    facts = run("quantize", plain, "--out", out, "--bits", 4, "--head-bits", 8, "--report", text, "--json")
    quality = facts["quality"]
    assert quality == json.loads((tmp_path / "q.quality.json").read_text())
    assert Quantization.of(read_config(out)) == Quantization(4, 8)
    assert quality["bytes"] == len(text.read_bytes())
    assert 0 < quality["greedy_agreement"] < 1
    again = run("compare", plain, plain, "--text", text, "--tokens", 200, "--json")
    assert again["tokens"] == 200
    assert again["greedy_agreement"] == 1
    assert again["divergence_bits_per_token"] == 0
    plain.with_name("plain.quality.json").unlink()


def test_bits_are_those_of_the_plain_cross_entropy(plain: Path):
    """Against torch's own, over the same windows."""
    models = load_folder(plain, dtype=torch.float32), load_folder(plain, dtype=torch.bfloat16)
    ids = torch.randint(0, 400, (151,), generator=torch.Generator().manual_seed(1))
    found = agree(models, ids.tolist(), window=60)
    expected, equal, divergence = torch.zeros(2), 0, 0.0
    with torch.no_grad():
        for begin, end in ((0, 60), (60, 120), (120, 150)):
            logits = [model(ids[None, begin:end]).logits_BTW[0].float() for model in models]
            target = ids[begin + 1 : end + 1]
            entropy = [torch.nn.functional.cross_entropy(each, target, reduction="sum") for each in logits]
            expected += torch.stack(entropy)
            equal += int((logits[0].argmax(-1) == logits[1].argmax(-1)).sum())
            first, second = (torch.distributions.Categorical(logits=each) for each in logits)
            divergence += float(torch.distributions.kl_divergence(first, second).sum())
    assert found.predictions == 150
    assert found.equal == equal
    assert found.bits == pytest.approx((expected / torch.tensor(2.0).log()).tolist(), rel=1e-4)
    assert found.divergence * torch.tensor(2.0).log() == pytest.approx(divergence, rel=1e-3)


def test_verify_compares_with_transformers(plain: Path, run: Run):
    assert "24 of 24 greedy tokens are equal" in run("verify", plain, "--reference")


def test_verify_finds_a_wrong_tensor_a_wrong_tokenizer_and_changed_files(run: Run, tmp_path: Path):
    folder = tiny_model.make_folder(tmp_path / "model", **WIDE)
    manifest: dict[str, Any] = {"stage": "x", "version": 1, "config": {}, "inputs": {}, "seed": 1}
    manifest["outputs"] = {f"model/{path.name}": digest_file(path) for path in folder.iterdir()}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert [each["ok"] for each in run("verify", folder, "--json")] == [True] * 7
    (folder / "README.md").write_text("changed")
    findings = run("verify", folder, "--json", code=1)
    assert [each["detail"] for each in findings if not each["ok"]] == [
        "changed since the stage wrote them: model/README.md"
    ]
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"bos_token_id": 3}))
    assert "its begin token is 415, config.json says 3" in run("verify", folder, code=1)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] = torch.nan
    save_file(tensors, folder / "model.safetensors")
    assert "model.norm.weight is not finite" in run("verify", folder, code=1)


def test_export_writes_a_file_and_nothing_beside_it(plain: Path, run: Run, tmp_path: Path):
    run("export", plain, "--gguf", tmp_path / "new" / "model.gguf")
    assert (tmp_path / "new" / "model.gguf").read_bytes()[:4] == b"GGUF"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.gguf"]


def test_random_folders_of_a_recipes_shape_take_the_tokenizer(plain: Path, run: Run, tmp_path: Path):
    out = tmp_path / "out"
    run("init", "--shape", "toy", "--layers", 2, "--tokenizer", plain, "--out", out, "--bits", 4, "--seed", 3)
    config = read_config(out)
    assert (config.num_hidden_layers, config.hidden_size) == (2, 256)
    assert config.vocab_size == 448
    assert config.bos_token_id == 415
    assert "wrong" not in run("verify", out)
    run("init", "--shape", out, "--out", tmp_path / "again", "--bits", 8)
    assert read_config(tmp_path / "again").vocab_size == 448


def test_a_published_shape_with_fewer_layers(run: Run, plain: Path):
    from codeweft.model_folders import shape_named, with_tokenizer
    from codeweft.tokenizer.load import load_tokenizer

    assert shape_named("lite").num_hidden_layers == 27
    assert with_tokenizer(shape_named("lite"), load_tokenizer(plain), fresh=False).vocab_size == 102400


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["info", "/no/such"], 1, "/no/such/config.json is missing"),
        (["info", "{plain}", "--context", "much"], 1, "is no number of tokens"),
        (["verify", "{plain}/config.json"], 1, "is missing"),
        (["quantize", "/no/such", "--out", "{out}"], 1, "/no/such/config.json is missing"),
        (["quantize", "{plain}", "--out", "{plain}"], 1, "is not empty"),
        (["quantize", "{plain}", "--out", "{out}", "--bits", "5"], 2, "invalid choice"),
        (["quantize", "{plain}", "--out", "{out}", "--report", "/no/text"], 1, "There is no text file /no/text"),
        (["quantize", "{plain}"], 2, "required: --out"),
        (["compare", "{plain}", "{plain}", "--text", "{binary}"], 1, "is not UTF-8"),
        (["compare", "{plain}", "{plain}", "--text", "{empty}"], 1, "The texts are empty"),
        (["compare", "{plain}", "{plain}", "--text", "{empty}", "--tokens", "0"], 1, "--tokens is 0"),
        (["export", "{plain}", "--gguf", "{folder}"], 1, "is a folder"),
        (["export", "{plain}"], 2, "required: --gguf"),
        (["init", "--shape", "lit", "--out", "{out}"], 1, "There is no shape lit. Did you mean lite?"),
        (["init", "--shape", "toy", "--out", "{out}", "--head-bits", "8"], 1, "without --bits"),
        (["init", "--shape", "toy", "--out", "{out}", "--layers", "0"], 1, "num_hidden_layers is 0"),
        (["init", "--shape", "toy", "--out", "{out}", "--std", "-1"], 1, "--std is -1"),
        (["quantise", "x"], 2, "There is no command model quantise. Did you mean quantize?"),
    ],
)
def test_a_mistake_is_one_clear_sentence(
    words: list[str], code: int, message: str, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").write_text("")
    (tmp_path / "folder").mkdir()
    places = {name: str(tmp_path / name) for name in ("out", "binary", "empty", "folder")} | {"plain": str(plain)}
    assert main(["model", *(word.format(**places) for word in words)]) == code
    shown = capsys.readouterr()
    assert message in shown.err + shown.out
    assert "Traceback" not in shown.err
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_in_memory_is_told_before_it_is_loaded(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "text").write_text("def f(): pass")
    monkeypatch.setattr(agreement.os, "sysconf", lambda name: 100)
    words = ["model", "quantize", str(plain), "--out", str(tmp_path / "q"), "--report", str(tmp_path / "text")]
    assert main(words) == 1
    assert "this machine has 10000 bytes" in capsys.readouterr().err
    assert not (tmp_path / "q").exists()
