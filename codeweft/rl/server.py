"""Answers drawn by a server instead of our engine: vLLM, SGLang, ours, or another that speaks OpenAI's interface.

In:  the policy, where the server is.  Out: answers as token ids, their log-probabilities left to the trainer.
Source: DeepSeek-V2 §4.2 (answers are drawn by an inference engine of its own, with the weights of the moment).

Unusual: the server gets the weights as a model folder on a disk that both see. A server that was out of reach may have
been started anew with other weights, so it gets them again before it is asked again, and what it said meanwhile is not
passed on. How it takes prompts is found out with one token before the first answers: as ids, or as a text that it
reads in as many tokens.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from codeweft.base.artifacts import atomic_folder, discard_folder, remove_partials
from codeweft.base.errors import ConfigError, UserError
from codeweft.base.progress import say
from codeweft.engine.remote import Again, Refused, RemoteCompletion, RemoteConfig, RemoteModel
from codeweft.model.folder import companion_files, save_folder
from codeweft.model.transformer import Transformer
from codeweft.rl.config import GrpoConfig
from codeweft.rl.rollout import Drawn, Wanted, weights_digest
from codeweft.tokenizer.load import Tokenizer

RETRIES = 16  # of one question: a server that is started anew has some eight minutes to load its model
VLLM_CALL = "/collective_rpc"  # takes the name of what is to be done, so its request has a form of its own
VLLM_FORGET = "/reset_prefix_cache?reset_running_requests=true"  # what was read of prompts with the old weights
NOT_UNDERSTOOD = (400, 422)  # statuses of a request whose fields a server does not take
NOT_THERE = (404, 405)  # of one to a path that it does not have


@dataclass(frozen=True, slots=True)
class Form:
    """How a server is asked: what a prompt is, and whether the ids of the answer's tokens are asked for."""

    prompt: Literal["ids", "text", "text with begin"]
    ids: bool


# what is tried, the first that works is kept; most servers put the begin token before a text themselves
FORMS = tuple(Form(prompt, ids) for prompt in ("ids", "text", "text with begin") for ids in (True, False))


class PolicyServer(RemoteModel):
    """A server that holds the weights of this step; whenever it may have lost them, it is given them first.

    What is under way when a loss is noticed is given up, since nobody could say which weights would answer.
    """

    def __init__(self, config: RemoteConfig, load: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self.load = load
        self.loading: asyncio.Task[None] | None = None
        self.losses = 0
        self.under_way: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """End all connections, and a loading that nobody waits for any more."""
        if self.loading is not None:
            self.loading.cancel()
            await asyncio.gather(self.loading, return_exceptions=True)
        await super().close()

    async def _once(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        waited: asyncio.Task[None] | None = None
        while self.loading is not None and self.loading is not waited:
            waited = self.loading
            await asyncio.shield(waited)
        losses = self.losses
        asking = asyncio.create_task(super()._once(method, path, body))
        self.under_way.add(asking)
        asking.add_done_callback(self.under_way.discard)
        [found] = await asyncio.gather(asking, return_exceptions=True)
        if losses != self.losses:
            raise Again("the server went away while it answered.")
        if isinstance(found, Again) and not found.alive:
            self.losses += 1
            for other in self.under_way:
                other.cancel()
            self.loading = asyncio.create_task(self._load_again())
        if isinstance(found, BaseException):
            raise found
        return found

    async def _load_again(self) -> None:
        say(f"grpo: {self.config.url} was out of reach; it gets the weights again.")
        await self.load()


class ServerSampler:
    """Draws answers from a server whose model is the policy."""

    def __init__(self, config: GrpoConfig, policy: Transformer, tokenizer: Tokenizer, folder: Path) -> None:
        """`folder` is where the server reads the weights. UserError where it could not be told to, or not be asked."""
        server = config.server
        if not server.reload:
            raise ConfigError(
                "grpo.server.reload is not set: the server would go on with the weights that it was started with, "
                "and the policy would learn from another model's answers.",
                f"Set the path at which it loads weights: {VLLM_CALL} for vLLM, /update_weights_from_disk for SGLang.",
            )
        self.config, self.policy, self.tokenizer, self.folder = config, policy, tokenizer, folder.absolute()
        asked = RemoteConfig(
            server.url,
            server.model,
            concurrency=server.concurrency,
            timeout_seconds=server.timeout_seconds,
            retries=RETRIES,
        )
        self.remote = RemoteModel(asked).config  # which was looked at
        self.form: Form | None = None
        self.served: Path | None = None

    # --- weights ---------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Write the policy, unless it is written, and wait until the server has loaded it.

        New weights get a folder of a new name: servers keep what they read under an old one.
        """
        remove_partials(self.folder.iterdir() if self.folder.is_dir() else ())
        self.served = self.folder / weights_digest(self.policy).rpartition(":")[2]
        if not self.served.exists():
            with atomic_folder(self.served) as partial:
                save_folder(self.policy, partial, extra_files=companion_files(self.tokenizer.folder))
        asyncio.run(self._load())
        for path in list(self.folder.iterdir()):
            if path != self.served:
                discard_folder(path)

    async def _load(self) -> None:
        """Make the server load the folder that was written last."""
        settings = self.config.server
        path, folder = "/" + settings.reload.lstrip("/"), str(self.served)
        calls: list[tuple[str, dict[str, Any]]] = [(path, {settings.folder_field: folder})]
        if path == VLLM_CALL:
            order = {"method": "reload_weights", "kwargs": {"weights_path": folder}}
            calls = [(VLLM_CALL, order), (VLLM_FORGET, {})]
        async with RemoteModel(replace(self.remote, url=self.remote.url.removesuffix("/v1"))) as server:
            try:
                [told, *_] = await server.post(*calls)
            except Refused as error:
                if error.status not in NOT_THERE:
                    raise
                raise UserError(
                    f"{error.message} That is where it is to load weights (grpo.server.reload).",
                    f"vLLM has {VLLM_CALL} when it is started with VLLM_SERVER_DEV_MODE=1.",
                ) from error
        if isinstance(told, dict) and told.get("success") is False:
            raise UserError(
                f"{self.remote.url} did not load {folder}: {told.get('message', told)}",
                "Look at the server's output; it must see that folder and have been started with this model.",
            )

    # --- answers ---------------------------------------------------------------------------------------------------

    def draw(self, wanted: Sequence[Wanted], ended: Callable[[int, Drawn], None]) -> None:
        """Ask for all answers at once; the server decides how many it draws together."""
        assert self.served is not None, "the server has no weights yet"
        if wanted:
            asyncio.run(self._draw(wanted, ended))

    async def _draw(self, wanted: Sequence[Wanted], ended: Callable[[int, Drawn], None]) -> None:
        if self.form is None:
            self.form = await self._agree(wanted[0].prompt.tokens)
        form, config = self.form, self.config

        async def one(server: RemoteModel, number: int) -> tuple[int, RemoteCompletion]:
            each = wanted[number]
            return number, await server.complete(
                self._prompt(each.prompt.tokens, form),
                max_tokens=config.max_tokens,
                temperature=config.temperature,
                top_p=config.top_p,
                seed=each.seed,
            )

        async with PolicyServer(replace(self.remote, token_ids=form.ids), self._load) as server:
            asked = [asyncio.create_task(one(server, number)) for number in range(len(wanted))]
            try:
                for answer in asyncio.as_completed(asked):
                    number, found = await answer
                    ended(number, self._answer(found))
            finally:
                for task in asked:
                    task.cancel()
                await asyncio.gather(*asked, return_exceptions=True)

    async def _agree(self, prompt: tuple[int, ...]) -> Form:
        """The first form in which the server takes the prompt and reads it as it is; what is lost is said."""
        reasons: list[str] = []
        for form in FORMS:
            asked = replace(self.remote, token_ids=form.ids, stream=False)
            async with PolicyServer(asked, self._load) as server:
                try:
                    found = await server.complete(self._prompt(prompt, form), max_tokens=1, temperature=0)
                except Refused as error:
                    if error.status not in NOT_UNDERSTOOD:
                        raise
                    reasons.append(error.message)
                    continue
            if found.prompt_tokens not in (0, len(prompt)):
                reasons.append(f"It reads a prompt of {len(prompt)} tokens as {found.prompt_tokens} ({form.prompt}).")
                continue
            if form.prompt != "ids":
                say(f"grpo: {self.remote.url} takes no token ids; prompts are sent as text. {reasons[0]}")
            if not found.ids:
                say(
                    f"grpo: {self.remote.url} does not tell token ids; its texts are cut in tokens again, which need "
                    "not be the tokens that it drew."
                )
            return replace(form, ids=bool(found.ids))
        raise UserError(
            f"{self.remote.url} does not take the policy's prompts: {' '.join(dict.fromkeys(reasons))}",
            "Serve the policy's own model folder, with a server that takes token ids or leaves texts as they are.",
        )

    def _prompt(self, tokens: tuple[int, ...], form: Form) -> str | tuple[int, ...]:
        if form.prompt == "ids":
            return tokens
        begins = tokens[0] == self.tokenizer.begin and form.prompt == "text"
        return self.tokenizer.decode(tokens[1:] if begins else tokens, skip_special=False)

    def _answer(self, found: RemoteCompletion) -> Drawn:
        """An answer with its tokens, the end token among them; UserError where they cannot be the policy's."""
        ids, finish, most = list(found.ids), found.finish, self.config.max_tokens
        strange = [each for each in ids if each >= self.policy.config.vocab_size]
        if strange or len(ids) > most:
            what = f"token {strange[0]}" if strange else f"{len(ids)} tokens where {most} were asked for"
            raise UserError(
                f"{self.remote.url} drew {what}: its model is not the policy.", "Serve the policy's own model folder."
            )
        ids = ids or self.tokenizer.encode(found.text)
        if finish == "stop" and (not ids or ids[-1] not in self.tokenizer.control.values()):
            ids.append(self.tokenizer.end)
        if len(ids) > most:  # a text can be cut in more tokens than were drawn, and the rows have no room for them
            ids, finish = ids[:most], "length"
        if not ids:
            raise UserError(
                f"{self.remote.url} drew {found.tokens} tokens that show no text, and does not tell them.",
                "Use a server that tells token ids (return_token_ids).",
            )
        return Drawn(tuple(ids), (), found.text, finish)
