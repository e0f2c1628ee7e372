"""Answers by a server are those that our engine draws with the same weights, whatever the server goes through."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from foreign_server import VLLM, SGLang, gone
from scripted_server import Reply, piece, send, served, stream
from starlette.concurrency import run_in_threadpool
from tiny_judge import StubJudge, problem
from tiny_model import make_folder
from tiny_server import Served, serve

from codeweft.base.artifacts import atomic
from codeweft.base.errors import UserError
from codeweft.base.records import Problem
from codeweft.base.runs import Run
from codeweft.engine import remote
from codeweft.engine.engine import Engine
from codeweft.model.folder import load_folder
from codeweft.model.transformer import Transformer
from codeweft.rl import loop
from codeweft.rl import server as server_module
from codeweft.rl.config import GrpoConfig, ObjectiveConfig, PaceConfig, ServerConfig
from codeweft.rl.prompts import Prompt
from codeweft.rl.rollout import Drawn, EngineSampler, Wanted
from codeweft.rl.server import ServerSampler
from codeweft.sandbox.config import SandboxConfig
from codeweft.serve.config import ServeConfig
from codeweft.tasks.problem_files import write_problems
from codeweft.tokenizer.load import Tokenizer, load_tokenizer

TEXTS = ("def add(a, b):\n", "class Stack:\n    def", "import os\n")
CONFIG = GrpoConfig(max_tokens=12, temperature=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What servers are started with; the policies below are other weights."""
    return make_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return load_tokenizer(folder)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(remote, "LONGEST_PAUSE", 0.05)


def policy_of(folder: Path, seed: int) -> Transformer:
    """Weights of one's own that bfloat16 holds exactly, as a folder does."""
    policy, random = load_folder(folder, dtype=torch.float32), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in policy.parameters():
            each.copy_((each + 0.1 * torch.randn(each.shape, generator=random)).bfloat16())
    return policy


def wanted_of(tokenizer: Tokenizer, group: int = 3) -> list[Wanted]:
    prompts = [Prompt(Problem(text, "katas"), (tokenizer.begin, *tokenizer.encode(text))) for text in TEXTS]
    return [Wanted(prompt, 100 * place + number) for place, prompt in enumerate(prompts) for number in range(group)]


def ours(policy: Transformer, tokenizer: Tokenizer, wanted: list[Wanted], config: GrpoConfig = CONFIG) -> list[Drawn]:
    """What our engine draws, without the log-probabilities that servers do not tell."""
    engine = Engine(policy, tokenizer, rows=4, guess=0)
    drawn = gathered(EngineSampler(engine, config.max_tokens, config.temperature, config.top_p), wanted)
    return [replace(each, logprobs=()) for each in drawn]


def gathered(sampler: Any, wanted: list[Wanted]) -> list[Drawn]:
    """All answers in their order; fails where one is passed on twice or from another thread."""
    drawn: dict[int, Drawn] = {}
    here = threading.get_ident()

    def ended(number: int, answer: Drawn) -> None:
        assert number not in drawn
        assert threading.get_ident() == here
        drawn[number] = answer

    sampler.draw(wanted, ended)
    return [drawn[number] for number in range(len(wanted))]


def sampler_for(url: str, policy: Transformer, tokenizer: Tokenizer, path: Path, **settings: Any) -> ServerSampler:
    server = replace(ServerConfig(url, reload="/update_weights_from_disk", timeout_seconds=20.0), **settings)
    return ServerSampler(replace(CONFIG, server=server), policy, tokenizer, path / "served")


# --- our own server --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(folder: Path) -> Iterator[Served]:
    """Our server as it is, with a way to load weights that only this test knows."""
    running = serve(Engine.load(folder, rows=4), ServeConfig(port=0, name="tiny"))
    server = next(running)

    async def load(body: dict[str, str]) -> dict[str, bool]:
        await run_in_threadpool(server.wait_until_idle)
        server.engine.model.load_state_dict(load_folder(body["model_path"], dtype=torch.float32).state_dict())
        server.engine.refresh()
        return {"success": True}

    server.server.config.app.add_api_route("/update_weights_from_disk", load, methods=["POST"])  # ty: ignore[missing-attribute]
    yield server
    next(running, None)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1e-4])
def test_our_own_server_draws_what_our_engine_draws(
    own: Served, folder: Path, tokenizer: Tokenizer, tmp_path: Path, temperature: float
):
    """At 0.0001 greedy; the weights are the policy's of this step, not those that the server began with."""
    policy, wanted = policy_of(folder, seed=1), wanted_of(tokenizer)
    sampler = sampler_for(f"{own.url}/v1", policy, tokenizer, tmp_path)
    sampler.config = replace(sampler.config, temperature=temperature)
    sampler.refresh()
    assert gathered(sampler, wanted) == ours(policy, tokenizer, wanted, sampler.config)
    with torch.no_grad():
        policy.lm_head.weight.copy_(policy_of(folder, seed=2).lm_head.weight)
    sampler.refresh()
    assert gathered(sampler, wanted) == ours(policy, tokenizer, wanted, sampler.config)
    assert len(list(sampler.folder.iterdir())) == 1


# --- servers of others -----------------------------------------------------------------------------------------------


def test_vllm_gets_the_weights_and_tells_the_tokens(folder: Path, tokenizer: Tokenizer, tmp_path: Path):
    policy, wanted = policy_of(folder, seed=3), wanted_of(tokenizer)
    with served(VLLM(folder)) as script:
        sampler = sampler_for(script.url, policy, tokenizer, tmp_path, reload="/collective_rpc")
        sampler.refresh()
        assert gathered(sampler, wanted) == ours(policy, tokenizer, wanted)
    paths = [body["path"] for body in script.bodies]
    assert paths[:2] == ["/collective_rpc", "/reset_prefix_cache?reset_running_requests=true"]
    assert paths[2:] == ["/v1/completions"] * (1 + len(wanted))  # one token to find out how it is asked


def test_where_tokens_are_not_told_their_text_is_cut_again_and_that_is_said(
    folder: Path, tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    policy, wanted = policy_of(folder, seed=3), wanted_of(tokenizer)
    with served(SGLang(folder)) as script:
        sampler = sampler_for(script.url, policy, tokenizer, tmp_path)
        sampler.refresh()
        got = [*gathered(sampler, wanted), *gathered(sampler, wanted)]
    for drawn, engines in zip(got, ours(policy, tokenizer, wanted) * 2, strict=True):
        assert drawn.text == engines.text
        again = [*tokenizer.encode(engines.text), *([tokenizer.end] if engines.finish == "stop" else [])]
        assert list(drawn.tokens) == again[: CONFIG.max_tokens]
    assert capsys.readouterr().err.count("does not tell token ids") == 1


@pytest.mark.parametrize("begins", [True, False])
def test_where_ids_are_refused_the_prompt_is_the_text_that_is_read_in_as_many_tokens(
    folder: Path, tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str], begins: bool
):
    """`begins`: the server puts a begin token before a text itself, as most do."""
    vllm = VLLM(folder)

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if handler.path != "/v1/completions":
            return vllm(handler, body)
        if not isinstance(body["prompt"], str):
            return send(handler, {"error": {"message": "prompt must be a string"}}, 422)
        ids = tokenizer.encode(body["prompt"], special=True)
        return vllm(handler, body | {"prompt": [*([tokenizer.begin] if begins else []), *ids]})

    policy, wanted = policy_of(folder, seed=3), wanted_of(tokenizer)
    with served(reply) as script:
        sampler = sampler_for(script.url, policy, tokenizer, tmp_path, reload="/collective_rpc")
        sampler.refresh()
        assert gathered(sampler, wanted) == ours(policy, tokenizer, wanted)
    assert capsys.readouterr().err.count("takes no token ids; prompts are sent as text") == 1


def test_a_server_that_reads_prompts_otherwise_is_refused(folder: Path, tokenizer: Tokenizer, tmp_path: Path):
    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        send(handler, {"choices": [{"text": "x", "finish_reason": "length"}], "usage": {"prompt_tokens": 77}})

    with served(reply) as script:
        sampler = sampler_for(script.url, policy_of(folder, 3), tokenizer, tmp_path)
        sampler.refresh()
        with pytest.raises(UserError, match="tokens as 77"):
            gathered(sampler, wanted_of(tokenizer))


# --- servers that fail -----------------------------------------------------------------------------------------------


def garbage(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    send(handler, b"<html>Bad gateway</html>")


def half(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    stream(handler, piece("ret"))


def aborted(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    stream(handler, piece("ret"), piece("", "abort"), "[DONE]")


@pytest.mark.parametrize("dying", [garbage, half, aborted, gone])
def test_a_server_that_dies_amid_a_step_and_begins_anew_gets_the_weights_before_it_answers(
    folder: Path, tokenizer: Tokenizer, tmp_path: Path, dying: Reply
):
    """It comes back with the weights of its start, whose answers would be another model's."""
    vllm = VLLM(folder, dying, (1, 6, 9))
    policy, wanted = policy_of(folder, seed=4), wanted_of(tokenizer)
    with served(vllm) as script:
        sampler = sampler_for(script.url, policy, tokenizer, tmp_path, reload="/collective_rpc", concurrency=4)
        sampler.refresh()
        assert gathered(sampler, wanted) == ours(policy, tokenizer, wanted)
    assert vllm.lives == 4
    assert 3 <= len(vllm.loaded) <= 4  # two deaths may come before one loading
    assert len(set(vllm.loaded)) == 1  # the same folder: nothing was written again


def test_what_a_server_says_after_a_loss_was_noticed_is_asked_for_again(
    folder: Path, tokenizer: Tokenizer, tmp_path: Path
):
    """One question is cut off while another is under way; the other's answer may come from the server's next life."""
    vllm, cut, late = VLLM(folder), threading.Event(), threading.Event()

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if handler.path == "/v1/completions" and body["stream"] and not cut.is_set():
            if body["seed"] == 0:
                assert late.wait(10)
                cut.set()
                return gone(handler, body)
            late.set()
            assert cut.wait(10)
            threading.Event().wait(0.2)
            return stream(handler, piece("of other weights", "stop"), "[DONE]")
        return vllm(handler, body)

    policy, wanted = policy_of(folder, seed=4), wanted_of(tokenizer)[:2]
    with served(reply) as script:
        sampler = sampler_for(script.url, policy, tokenizer, tmp_path, reload="/collective_rpc", concurrency=2)
        sampler.refresh()
        assert gathered(sampler, wanted) == ours(policy, tokenizer, wanted)


def test_a_server_that_is_busy_is_asked_again_and_not_given_the_weights_again(
    folder: Path, tokenizer: Tokenizer, tmp_path: Path
):
    vllm = VLLM(folder)
    refused: set[int] = set()

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if handler.path == "/v1/completions" and body["seed"] not in refused:
            refused.add(body["seed"])
            status, pause = (429, {}) if body["seed"] else (503, {"Retry_After": "0.01"})
            return send(handler, {"error": {"message": "too many"}}, status, **pause)
        return vllm(handler, body)

    policy, wanted = policy_of(folder, seed=4), wanted_of(tokenizer)
    with served(reply) as script:
        sampler = sampler_for(script.url, policy, tokenizer, tmp_path, reload="/collective_rpc")
        sampler.refresh()
        assert gathered(sampler, wanted) == ours(policy, tokenizer, wanted)
    assert len(vllm.loaded) == 1


def test_a_server_that_stays_away_ends_the_step_with_what_to_do(
    folder: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(server_module, "RETRIES", 2)
    vllm, dead = VLLM(folder), threading.Event()

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if vllm.questions == 4:
            dead.set()
        (gone if dead.is_set() else vllm)(handler, body)

    passed: list[int] = []
    with served(reply) as script:
        policy = policy_of(folder, seed=4)
        sampler = sampler_for(script.url, policy, tokenizer, tmp_path, reload="/collective_rpc", concurrency=1)
        sampler.refresh()
        with pytest.raises(UserError, match="run the same command again: it goes on from here"):
            sampler.draw(wanted_of(tokenizer), lambda number, _: passed.append(number))
    assert len(passed) == len(set(passed)) == 3


@pytest.mark.parametrize(
    ("told", "words"),
    [([10**6], "drew token 1000000"), ([5] * 13, "drew 13 tokens where 12 were asked for")],
)
def test_tokens_that_cannot_be_the_policys_are_refused(
    folder: Path, tokenizer: Tokenizer, tmp_path: Path, told: list[int], words: str
):
    vllm = VLLM(folder)

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if handler.path == "/v1/completions" and body["stream"]:
            return stream(handler, {"choices": [piece("x", "stop")["choices"][0] | {"token_ids": told}]}, "[DONE]")
        return vllm(handler, body)

    with served(reply) as script:
        sampler = sampler_for(script.url, policy_of(folder, 4), tokenizer, tmp_path, reload="/collective_rpc")
        sampler.refresh()
        with pytest.raises(UserError, match=words):
            gathered(sampler, wanted_of(tokenizer))


# --- weights ---------------------------------------------------------------------------------------------------------


def test_without_a_way_to_hand_weights_over_nothing_begins(folder: Path, tokenizer: Tokenizer, tmp_path: Path):
    with pytest.raises(UserError, match=r"grpo\.server\.reload is not set.*/collective_rpc for vLLM"):
        sampler_for("http://127.0.0.1:9/v1", policy_of(folder, 4), tokenizer, tmp_path, reload="")


@pytest.mark.parametrize(
    ("status", "words"), [(200, "no such folder"), (400, "no such folder"), (404, "VLLM_SERVER_DEV_MODE=1")]
)
def test_a_server_that_cannot_load_the_weights_ends_the_step(
    folder: Path, tokenizer: Tokenizer, tmp_path: Path, status: int, words: str
):
    told = {"success": False, "message": "no such folder"}
    with served(lambda handler, body: send(handler, told, status)) as script:
        sampler = sampler_for(script.url, policy_of(folder, 4), tokenizer, tmp_path)
        with pytest.raises(UserError, match=words):
            sampler.refresh()
    assert len(script.bodies) == 1


def test_the_folder_is_a_complete_model_folder_and_weights_that_did_not_change_are_not_written_again(
    folder: Path, tokenizer: Tokenizer, tmp_path: Path
):
    policy = policy_of(folder, seed=5)
    with served(SGLang(folder)) as script:
        sampler = sampler_for(script.url, policy, tokenizer, tmp_path)
        sampler.refresh()
        [written] = sampler.folder.iterdir()
        stamps = {path.name: path.stat().st_mtime_ns for path in written.iterdir()}
        sampler.refresh()
    assert {path.name: path.stat().st_mtime_ns for path in written.iterdir()} == stamps
    assert [body["model_path"] for body in script.bodies] == [str(written)] * 2
    assert json.loads((written / "config.json").read_text())["torch_dtype"] == "bfloat16"
    read = load_folder(written, dtype=torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(read.parameters(), policy.parameters(), strict=True))
    assert load_tokenizer(written).digest == tokenizer.digest


# --- the stage -------------------------------------------------------------------------------------------------------


class EvenJudge(StubJudge):
    """Answers with an even number of letters e are right; nothing is run."""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__(lambda text: "ok" if text.count("e") % 2 == 0 else "wrong")

    def __enter__(self) -> "EvenJudge":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_a_run_whose_server_went_away_goes_on_at_what_was_kept_and_ends_with_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(server_module, "RETRIES", 2)
    monkeypatch.setattr(loop, "Judge", EvenJudge)
    (tmp_path / "problems").mkdir()
    with atomic(tmp_path / "problems" / "train.jsonl") as file:
        write_problems(file, [problem(f"p{number}") for number in range(4)])
    vllm = VLLM(folder)
    answers_left = 10**6

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        nonlocal answers_left
        answers_left -= handler.path == "/v1/completions"
        (gone if answers_left < 0 else vllm)(handler, body)

    def grpo(name: str, url: str, **given: Any) -> Run:
        (tmp_path / name).mkdir(exist_ok=True)
        inputs = {"sft": tmp_path / "sft", "problems": tmp_path / "problems"}
        stage = Run("grpo", tmp_path / name, 1, inputs, sections={"sandbox": SandboxConfig()}, model_stage="", **given)
        config = GrpoConfig(
            init=folder,
            pace=PaceConfig(steps=4, learning_rate=1e-3, sequence=96, micro_batch=2),
            objective=ObjectiveConfig(group=4),
            server=ServerConfig(url, reload="/collective_rpc", concurrency=2),
            prompts=2,
            max_tokens=8,
            checkpoint_every=1,
            precision="float32",
        )
        loop.run(config, stage)
        return stage

    with served(reply) as script:
        whole = grpo("whole", script.url)
        answers_left = 1 + 2 * 8 + 3  # the third rollout is cut off
        with pytest.raises(UserError, match="run the same command again"):
            grpo("cut", script.url)
        answers_left, before = 10**6, vllm.questions
        again = grpo("cut", script.url, resumed=True)
    assert vllm.questions - before == 1 + 2 * 8  # the two rollouts that were not kept
    assert again.outputs == whole.outputs
    assert {"rollouts/000003.parquet", "model/model.safetensors"} <= set(whole.outputs)
    assert not pq.read_table(tmp_path / "cut" / "rollouts" / "000002.parquet")["logprobs"][0].as_py()
