"""What the completion endpoint takes and gives, in OpenAI's field names.

In:  a JSON body.  Out: a checked `CompletionRequest`, or an error body that names the fields that are wrong.

Unusual: unknown fields are refused instead of ignored, and so are known ones whose effect this server does not have,
unless they carry the value that has no effect.
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

Prompt = str | list[str] | list[int] | list[list[int]]
NOT_SUPPORTED = "not supported by this server; leave it out"
UNKNOWN = "unknown_field"  # the type of our error about fields
MOST_NAMES = 8  # unknown fields that one error tells
LONGEST_NAME, LONGEST_MESSAGE = 64, 1000  # characters that an error repeats of a name, and has in all


class KnownFields(BaseModel):
    """A table that refuses fields it does not know.

    Pydantic's own refusal makes an error for each of them, and a body can hold hundreds of thousands.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _has_only_known_fields(cls, data: Any) -> Any:
        if isinstance(data, dict):
            unknown = [name for name in data if name not in cls.model_fields]
            if unknown:
                raise PydanticCustomError(UNKNOWN, "unknown field", _and_nearest(unknown, cls.model_fields))
        return data


class StreamOptions(KnownFields):
    """`stream_options`: whether the stream ends with a chunk that carries the usage."""

    include_usage: bool = False


class CompletionRequest(KnownFields):
    """`POST /v1/completions`; defaults are OpenAI's."""

    model: str = Field("", description="Any name: the loaded model answers, and its id stands in the answer.")
    prompt: Prompt = Field(description="Text, token ids, or a list of either.")
    suffix: str | None = Field(None, description="What follows the gap; the model fills it. Empty counts as none.")
    max_tokens: int | None = Field(16, ge=1, description="Longest completion in tokens.")
    temperature: float | None = Field(1.0, ge=0, le=2, description="0 takes the most probable token each time.")
    top_p: float | None = Field(1.0, ge=0, le=1, description="Draw from the most probable tokens of this mass.")
    stop: str | list[str] | None = Field(None, description="The text ends before the first of these.")
    stop_line: bool | None = Field(False, description="The text ends with its first line that holds something.")
    stop_indent: int | None = Field(None, ge=1, description="The text ends before a later line indented less.")
    stop_bracket: bool | None = Field(False, description="The text ends before a bracket it did not open is closed.")
    max_ms: float | None = Field(None, gt=0, description="Milliseconds after which the text so far is the answer.")
    n: int | None = Field(1, ge=1, le=128, description="Completions for each prompt.")
    seed: int | None = Field(None, ge=-(2**63), lt=2**63, description="Same seed, same text; none: drawn anew.")
    stream: bool | None = Field(False, description="Answer piece by piece as server-sent events.")
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = Field(False, description="Tell the ids of all tokens drawn, as vLLM does.")
    user: str | None = Field(None, description="Taken and not used.")
    echo: bool | None = Field(False, description="Only false.")
    logprobs: int | None = Field(None, description="Only null.")
    best_of: int | None = Field(None, description="Only null or n.")
    frequency_penalty: float | None = Field(0.0, description="Only 0.")
    presence_penalty: float | None = Field(0.0, description="Only 0.")
    logit_bias: dict[str, float] | None = Field(None, description="Only null or empty.")

    @field_validator("prompt", mode="plain", json_schema_input_type=Prompt)
    @classmethod
    def _prompt_is_text_or_tokens(cls, value: Any) -> Any:  # plain: a union makes an error of each item of each kind
        if isinstance(value, str) or (isinstance(value, list) and value and _alike(value)):
            return value
        raise ValueError("must be a text, a list of token ids, or a list of either, and not empty")

    @field_validator("stop", mode="before")
    @classmethod
    def _stop_is_text(cls, value: Any) -> Any:
        stops = [value] if isinstance(value, str) else value
        if stops is None or (isinstance(stops, list) and all(isinstance(stop, str) and stop for stop in stops)):
            if stops is not None and (len(stops) > 64 or any(len(stop) > 1024 for stop in stops)):
                raise ValueError("holds at most 64 texts of at most 1024 characters")
            return value
        raise ValueError("must be a text or a list of texts, none of them empty")

    @field_validator("logit_bias", mode="before")
    @classmethod
    def _bias_is_empty(cls, value: Any) -> Any:
        if isinstance(value, dict) and value:
            raise ValueError(NOT_SUPPORTED)
        return value

    @model_validator(mode="after")
    def _has_only_what_is_supported(self) -> "CompletionRequest":
        wanted = {
            "echo": self.echo,
            "logprobs": self.logprobs is not None,
            "best_of": self.best_of not in (None, self.count),
            "frequency_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
        }
        unsupported = [name for name, used in wanted.items() if used]
        if unsupported:
            raise ValueError(f"{', '.join(unsupported)}: {NOT_SUPPORTED}")
        if self.suffix and not all(isinstance(prompt, str) for prompt in self.prompts):
            raise ValueError("suffix: needs a prompt of text, not of token ids")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: only together with stream")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts as a list, one of token ids counting as one."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        tokens = [item for item in self.prompt if isinstance(item, int)]
        return [tokens] if tokens else [item for item in self.prompt if not isinstance(item, int)]

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def count(self) -> int:
        """Completions for each prompt."""
        return self.n or 1


def _alike(items: list[Any]) -> bool:
    """All texts, all token ids, or all non-empty lists of token ids (a bool is no token id)."""
    if all(type(item) is list for item in items):
        return all(item and all(type(token) is int for token in item) for item in items)
    return all(type(item) is str for item in items) or all(type(item) is int for item in items)


class Choice(BaseModel):
    """One completion, or in a stream the next piece of it; `token_ids` only where they are asked for."""

    text: str
    index: int
    logprobs: None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None


class Usage(BaseModel):
    """Tokens read and drawn; the end token and a stop string's tokens were drawn too."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionResponse(BaseModel):
    """The answer of `POST /v1/completions`, and each chunk of its stream."""

    id: str
    object: str = "text_completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None


def error_response(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """An error in OpenAI's form; `type` tells the client's faults from ours."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    message = message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]} …"
    content = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return JSONResponse(content, status, headers)


def explain(errors: Sequence[Any]) -> tuple[str, str | None]:
    """One sentence for what pydantic found, and the first field that is wrong.

    Unknown fields are named all together with the nearest right name of each.
    """
    error = errors[0]
    place = [str(part) for part in error["loc"] if part != "body"]
    if error["type"] == UNKNOWN:
        within = f" in {place[0]}" if place else ""
        return f"Unknown field {error['ctx']['told']}{within}.", ".".join([*place, error["ctx"]["first"]])
    if error["type"] == "json_invalid":
        return f"The body is not JSON: {error['ctx']['error']}.", None
    reason = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing" and place:
        return f"{place[0]} is missing.", place[0]
    if not place and error["type"] == "value_error":
        return f"{reason}.", reason.split(":")[0].split(",")[0]
    if not place:
        return "The body must be a JSON object, sent with Content-Type: application/json.", None
    return f"{place[0]}: {reason[:1].lower()}{reason[1:]}.", place[0]


def _and_nearest(unknown: list[str], known: Iterable[str]) -> dict[str, str]:
    """The first unknown name, and a line that tells some of them with the nearest known one of each."""
    shown = [name[:LONGEST_NAME].encode("utf-8", "backslashreplace").decode() for name in unknown[:MOST_NAMES]]
    told = []
    for name in shown:
        close = difflib.get_close_matches(name, known, n=1)
        told.append(f"{name} (did you mean {close[0]}?)" if close else name)
    more = [f"and {len(unknown) - MOST_NAMES} more"] if len(unknown) > MOST_NAMES else []
    return {"first": shown[0], "told": ", ".join([*told, *more])}
