"""The same questions to a model elsewhere: a client for any OpenAI-compatible URL.

In:  texts, token ids or messages.  Out: what the server's model says, its finish, and token ids and
log-probabilities where it tells them.

Unusual: what looks like an answer and is not one is never passed on. A stream that ends before its finish was said, a
time-out, 429 and 5xx are tried again from the start, after a pause that grows and that the server may set; whoever
gives up says what the server said last. Stop strings are applied here too, since servers take four at most and some
none.
"""

import asyncio
import json
import math
import os
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from codeweft.base.errors import UserError

if TYPE_CHECKING:
    import httpx

SENT_STOPS = 4  # stop strings that OpenAI's interface takes
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0  # seconds before a question is asked again
BYTES_PER_TOKEN = 64  # of a streamed answer, its JSON not counted; more of it is no answer to what was asked
SPARE_BYTES = 1 << 16
CUT_SHORT = ("abort", "cancelled", "error", "timeout")  # finishes of answers that the server did not write to their end
KEYS = ("CODEWEFT_API_KEY", "OPENAI_API_KEY")
# how servers say that prompt and answer together are longer than the model takes
TOO_LONG = re.compile(
    r"context.{0,20}(length|window|size)|context_length_exceeded|max_model_len|(prompt|input) is too long", re.I
)


@dataclass(frozen=True, slots=True)
class RemoteConfig:
    """Where the server is and how it is asked; an empty model is the first that the server lists."""

    url: str  # up to and with /v1
    model: str = ""
    key: str = ""  # none: $CODEWEFT_API_KEY, else $OPENAI_API_KEY
    concurrency: int = 8  # questions at once
    timeout_seconds: float = 120.0  # without a further piece of an answer
    retries: int = 8  # of one question
    stream: bool = True  # answers come piece by piece; whole ones say how long the prompt was
    token_ids: bool = False  # ask for the ids of an answer's tokens, in the words of vLLM and SGLang


@dataclass(frozen=True, slots=True)
class RemoteCompletion:
    """An answer; `tokens` as the server counts them (0: it does not say), `logprob` their sum where it tells it.

    `ids` are the answer's tokens and `prompt_tokens` the prompt's number, where the server tells them.
    """

    text: str
    tokens: int
    finish: Literal["stop", "length"]
    logprob: float | None = None
    ids: tuple[int, ...] = ()
    prompt_tokens: int = 0


class Again(Exception):
    """What the server did is no answer, but asking again may give one; `pause` is what it asked for in seconds.

    `alive` is true where the server itself asked to wait; else it may be gone, and another come in its place.
    """

    def __init__(self, reason: str, pause: float | None = None, alive: bool = False) -> None:
        super().__init__(reason)
        self.pause, self.alive = pause, alive


class Refused(UserError):
    """The server does not do what it is asked, and says so with this status."""

    def __init__(self, message: str, next_step: str, status: int) -> None:
        super().__init__(message, next_step)
        self.status = status


class TooLong(UserError):
    """The server says that a question does not fit its model."""


class RemoteModel:
    """A model behind a URL. It is used inside one event loop; `close` ends its connections."""

    def __init__(self, config: RemoteConfig) -> None:
        """UserError for a URL that is none, and where httpx is missing."""
        try:
            import httpx
        except ImportError as error:
            raise UserError("Asking a URL needs httpx.", "Install it: pip install 'codeweft[eval]'.") from error
        if not config.url.startswith(("http://", "https://")) or config.concurrency < 1 or config.timeout_seconds <= 0:
            raise UserError(f"{config.url} cannot be asked.", "Give a URL like http://127.0.0.1:8012/v1.")
        self.config = replace(config, url=config.url.rstrip("/"))
        self.known_model = config.model
        self.room: asyncio.Semaphore | None = None
        self.client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> "RemoteModel":
        """Itself; connections are opened when they are needed."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """End all connections."""
        if self.client is not None:
            await self.client.aclose()
            self.client = None

    # --- questions -------------------------------------------------------------------------------------------------

    async def complete(
        self,
        text: str | Sequence[int],
        *,
        suffix: str | None = None,
        max_tokens: int,
        temperature: float,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> RemoteCompletion:
        """What follows a text, or the text of these token ids; with a suffix, what stands between both."""
        body: dict[str, Any] = {"prompt": text if isinstance(text, str) else list(text)}
        body |= {} if suffix is None else {"suffix": suffix}
        body |= {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
        return await self._drawn("/completions", body, stop)

    async def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int,
        temperature: float,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> RemoteCompletion:
        """The assistant's next message."""
        body: dict[str, Any] = {"messages": [dict(message) for message in messages]}
        body |= {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
        return await self._drawn("/chat/completions", body, stop)

    async def logprobs(self, text: str, choices: Sequence[str]) -> list[float]:
        """The sum of each choice's log-probabilities after the text; UserError where the server does not tell them."""
        return list(await asyncio.gather(*(self._logprob(text, choice) for choice in choices)))

    async def post(self, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
        """What the server answers to requests that are no questions, such as to load weights; None where to nothing.

        They belong together: when one finds no answer, all are made again.
        """

        async def made() -> list[Any]:
            return [await self._once("POST", path, body) for path, body in calls]

        return await self._tried(calls[0][0], made)

    async def models(self) -> list[str]:
        """The names of the server's models."""
        found = await self._patiently("GET", "/models", None)
        try:
            return [str(each["id"]) for each in found["data"]]
        except (KeyError, TypeError) as error:
            raise UserError(f"{self.config.url}/models lists no models.", "Name one: --url-model NAME.") from error

    async def model(self) -> str:
        """The name of the model that is asked."""
        if not self.known_model:
            names = await self.models()
            if not names:
                raise UserError(f"{self.config.url} has no model.", "Load one there, or name one: --url-model NAME.")
            self.known_model = names[0]
        return self.known_model

    async def _drawn(self, path: str, body: dict[str, Any], stop: Sequence[str]) -> RemoteCompletion:
        body |= {"model": await self.model(), "stream": self.config.stream}
        if self.config.token_ids:
            body["return_token_ids"] = True
        if stop:
            body["stop"] = list(stop[:SENT_STOPS])
        found = await self._patiently("POST", path, body)
        return _cut(found, stop)

    async def _logprob(self, text: str, choice: str) -> float:
        body = {
            "model": await self.model(), "prompt": text + choice, "max_tokens": 1, "echo": True, "logprobs": 1,
            "temperature": 0,
        }  # fmt: skip
        found = await self._patiently("POST", "/completions", body)
        try:
            told = found["choices"][0]["logprobs"]
            offsets, logprobs = told["text_offset"], told["token_logprobs"]
            pairs = list(zip(_without_begin(offsets, told.get("tokens"), text + choice), logprobs, strict=True))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.config.url} does not tell the log-probabilities of a prompt (echo, logprobs).",
                "Ask by generation: --style base or --style chat.",
            ) from error
        end = len(text) + len(choice)
        inside = [logprob for offset, logprob in pairs if len(text) <= offset < end]
        if len(text) not in [offset for offset, _ in pairs] or None in inside:
            raise UserError(
                f"A token of {self.config.url} holds both the end of a prompt and the beginning of its choice.",
                "Ask by generation: --style base or --style chat.",
            )
        return math.fsum(inside)

    # --- patience --------------------------------------------------------------------------------------------------

    async def _patiently(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        """The answer of the server; asked again while that may help."""
        return await self._tried(path, lambda: self._once(method, path, body))

    async def _tried(self, path: str, once: Callable[[], Awaitable[Any]]) -> Any:
        if self.room is None:
            self.room = asyncio.Semaphore(self.config.concurrency)
        async with self.room:
            for attempt in range(self.config.retries + 1):
                try:
                    return await once()
                except Again as error:
                    if attempt == self.config.retries:
                        raise UserError(
                            f"{self.config.url}{path} gave no answer in {attempt + 1} tries; at last: {error}",
                            "Look after the server and run the same command again: it goes on from here.",
                        ) from error
                    pause = min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE) * random.uniform(0.5, 1)
                    await asyncio.sleep(min(max(pause, error.pause or 0), LONGEST_PAUSE))
        raise AssertionError("the last try returns or raises")

    async def _once(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        import httpx

        if self.client is None:
            key = self.config.key or next((os.environ[name] for name in KEYS if os.environ.get(name)), "")
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            limits = httpx.Limits(max_connections=self.config.concurrency)
            self.client = httpx.AsyncClient(headers=headers, timeout=self.config.timeout_seconds, limits=limits)
        try:
            async with self.client.stream(method, self.config.url + path, json=body) as response:
                if response.status_code != 200:
                    await _refused(self.config.url + path, response)
                most = SPARE_BYTES + BYTES_PER_TOKEN * 16 * int((body or {}).get("max_tokens", 0))
                if self.config.token_ids:  # vLLM repeats the prompt's beside the answer's
                    most += 2 * len(json.dumps(body))
                if "text/event-stream" in response.headers.get("content-type", ""):
                    return await _streamed(response, most, self.config.timeout_seconds)
                most += 64 * len(json.dumps(body))  # a prompt may come back, with numbers for each of its tokens
                return _whole(await _read(response, most), drawn=bool(body and "stream" in body))
        except (httpx.TimeoutException, TimeoutError) as error:
            raise Again(f"nothing came in {self.config.timeout_seconds:g} s.") from error
        except httpx.TransportError as error:
            raise Again(f"{type(error).__name__} {error}".strip() + ".") from error
        except httpx.InvalidURL as error:
            raise UserError(
                f"{self.config.url} is no URL: {error}.", "Give one like http://127.0.0.1:8012/v1."
            ) from error


def _without_begin(offsets: list[int], tokens: Any, prompt: str) -> list[int]:
    """Where tokens begin in the prompt; some servers count a begin token that the prompt does not show."""
    if len(offsets) > 1 and isinstance(tokens, list) and tokens and tokens[0] and not prompt.startswith(tokens[0]):
        return [offset - offsets[1] for offset in offsets]
    return offsets


async def _refused(url: str, response: "httpx.Response") -> None:
    """Raise what a status other than 200 means."""
    said = (await _read(response, SPARE_BYTES)).decode(errors="replace").strip()
    words = f"{response.status_code} {_message(said)}".strip()
    if response.status_code in (408, 409, 425, 429) or response.status_code >= 500:
        after = response.headers.get("retry-after", "")
        pause = float(after) if after.replace(".", "", 1).isdigit() else None
        raise Again(words, pause, alive=response.status_code < 500 or pause is not None)
    if response.status_code in (400, 413, 422) and TOO_LONG.search(said):
        raise TooLong(f"{url} refuses: {words}", "Leave that question out, or serve the model with a longer context.")
    steps = {401: "Set CODEWEFT_API_KEY.", 403: "Set CODEWEFT_API_KEY.", 404: "Look at the URL and at --url-model."}
    status = response.status_code
    raise Refused(f"{url} refuses: {words}", steps.get(status, "Look at what it says."), status)


def _message(said: str) -> str:
    """The message in a server's refusal, on one line."""
    try:
        error = json.loads(said)
        error = error.get("error", error.get("detail", error)) if isinstance(error, dict) else error
        said = str(error.get("message", error) if isinstance(error, dict) else error)
    except ValueError:
        pass
    return " ".join(said.split())[:300]


async def _read(response: "httpx.Response", most: int) -> bytes:
    parts, size = [], 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > most:
            raise Again(f"the answer is longer than {most:,} bytes.")
        parts.append(part)
    return b"".join(parts)


def _whole(content: bytes, drawn: bool) -> Any:
    """An answer that came in one piece; one that was drawn as a completion."""
    if not drawn and not content:
        return None
    try:
        found = json.loads(content)
        if not drawn:
            return found
        choice = found["choices"][0]
        message = choice.get("message") or {}
        text = choice.get("text") if "text" in choice else message.get("content")
        usage = found.get("usage") or {}
        tokens = int(usage.get("completion_tokens") or 0)
        answer = _finished(text or "", tokens, choice.get("finish_reason"))
        return replace(answer, ids=_ids(choice), prompt_tokens=int(usage.get("prompt_tokens") or 0))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise Again(f"the answer is no {'completion' if drawn else 'JSON'} ({type(error).__name__}).") from error


async def _streamed(response: "httpx.Response", most: int, seconds: float) -> RemoteCompletion:
    """The pieces of a stream put together; Again where it ends before its finish.

    TimeoutError after some seconds without a piece: comments that keep a connection alive are none.
    """
    texts, ids, count, finish, tokens = [], [], 0, None, 0
    clock = asyncio.get_running_loop().time
    async with asyncio.timeout(seconds) as patience:
        async for data in _events(response, most):
            if data == "[DONE]":
                break
            patience.reschedule(clock() + seconds)
            try:
                found = json.loads(data)
                if "error" in found:
                    raise Again(_message(data))
                tokens = int((found.get("usage") or {}).get("completion_tokens") or tokens)
                for choice in found["choices"][:1]:
                    piece = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
                    count += bool(piece)
                    texts.append(piece)
                    ids += _ids(choice)
                    finish = choice.get("finish_reason") or finish
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise Again(f"a piece of the stream is no piece of a completion ({type(error).__name__}).") from error
    return replace(_finished("".join(texts), tokens or len(ids) or count, finish), ids=tuple(ids))


def _ids(choice: Mapping[str, Any]) -> tuple[int, ...]:
    """The token ids that an answer or a piece of one tells; TypeError where they are none."""
    ids = choice.get("token_ids") or ()
    if not all(type(each) is int and each >= 0 for each in ids):
        raise TypeError("token_ids")
    return tuple(ids)


def _finished(text: str, tokens: int, finish: Any) -> RemoteCompletion:
    if finish is None:
        raise Again("the answer ended before its finish was said.")
    if finish in CUT_SHORT:
        raise Again(f"the server gave the answer up ({finish}).")
    return RemoteCompletion(text, tokens, "length" if finish == "length" else "stop")


async def _events(response: "httpx.Response", most: int) -> AsyncIterator[str]:
    """The data of server-sent events, one a line, as these servers send them."""
    size = 0
    async for line in response.aiter_lines():
        size += len(line)
        if size > most:
            raise Again(f"the answer is longer than {most:,} bytes.")
        if line.startswith("data:"):
            yield line.removeprefix("data:").strip()


def _cut(found: RemoteCompletion, stop: Sequence[str]) -> RemoteCompletion:
    """The text up to the first stop string, whichever the server looked for."""
    places = [found.text.find(each) for each in stop if each in found.text]
    return replace(found, text=found.text[: min(places)], finish="stop") if places else found
