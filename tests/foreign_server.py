"""Servers that behave like vLLM and SGLang towards a client that draws rollouts, over our engine."""

import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import torch
from scripted_server import Reply, piece, send, stream

from codeweft.engine.engine import Engine
from codeweft.engine.request import Completion, Request
from codeweft.model.folder import load_folder


def gone(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    handler.connection.close()


class Foreign:
    """What vLLM and SGLang have in common: a model whose weights can be exchanged, lost with the process."""

    def __init__(self, folder: Path) -> None:
        self.first = folder
        self.lock = threading.Lock()
        self.loaded: list[str] = []
        self.lives = self.questions = 0
        self.start()

    def start(self) -> None:
        self.lives += 1
        self.engine = Engine.load(self.first, rows=2)

    def load(self, path: str) -> None:
        self.loaded.append(path)
        self.engine.model.load_state_dict(load_folder(path, dtype=torch.float32).state_dict())
        self.engine.refresh()

    def completion(self, body: dict[str, Any]) -> Completion:
        request = Request(
            tuple(body["prompt"]), body["max_tokens"], body["temperature"], body["top_p"], seed=body["seed"]
        )
        return self.engine.generate([request])[0]


class VLLM(Foreign):
    """Takes ids and tells them, in a stream the prompt's with the first piece.

    At its questions of those numbers it dies as told, with all that it is at, and begins anew.
    """

    def __init__(self, folder: Path, dying: Reply | None = None, dies_at: tuple[int, ...] = ()) -> None:
        super().__init__(folder)
        self.dying, self.dies_at = dying, dies_at

    def __call__(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        life = self.lives
        with self.lock:
            if life != self.lives:
                return gone(handler, body)
            if handler.path == "/collective_rpc":
                assert body["method"] == "reload_weights"
                self.load(body["kwargs"]["weights_path"])
                return send(handler, {"results": [None]})
            if handler.path.startswith("/reset_prefix_cache"):
                return send(handler, b"")
            assert handler.path == "/v1/completions"
            self.questions += 1
            if self.dying is not None and self.questions in self.dies_at:
                self.dying(handler, body)
                return self.start()
            made = self.completion(body)
        first = piece(made.text)["choices"][0]
        last = piece("", made.finish)["choices"][0]
        ids = list(made.tokens)
        if body.get("return_token_ids"):
            first |= {"token_ids": ids[:-1], "prompt_token_ids": body["prompt"]}
            last |= {"token_ids": ids[-1:]}
        if body["stream"]:
            return stream(handler, {"choices": [first]}, {"choices": [last]}, "[DONE]")
        choice = piece(made.text, made.finish)["choices"][0]
        choice |= {"token_ids": ids} if body.get("return_token_ids") else {}
        return send(handler, {"choices": [choice], "usage": {"prompt_tokens": len(body["prompt"])}})


class SGLang(VLLM):
    """Loads weights in another way, and its older versions do not know what it is to tell ids."""

    def __call__(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if handler.path == "/update_weights_from_disk":
            with self.lock:
                self.load(body["model_path"])
            return send(handler, {"success": True, "message": "Succeeded to update model weights."})
        return super().__call__(handler, {name: body[name] for name in body if name != "return_token_ids"})
