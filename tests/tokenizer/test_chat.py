"""Conversations give the ids that transformers gives, and no message can forge a special token."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from codeweft.base.errors import ModelError
from codeweft.tokenizer import special
from codeweft.tokenizer.chat import encode_chat, render
from codeweft.tokenizer.load import Tokenizer

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Sort a list."},
    {"role": "assistant", "content": "sorted(xs)"},
    {"role": "user", "content": "And backwards?"},
]
README = (
    "<｜begin▁of▁sentence｜>Be brief.\n\nUser: Sort a list.\n\nAssistant: sorted(xs)<｜end▁of▁sentence｜>"
    "User: And backwards?\n\nAssistant:"
)
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text(max_size=20)}),
    min_size=1,
    max_size=5,
)
quick = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


class Templated:
    """The tokenizer with another template."""

    def __init__(self, tokenizer: Tokenizer, template: str | None) -> None:
        self.tokenizer, self.chat_template = tokenizer, template

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


@pytest.fixture(scope="module")
def theirs(trained: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(trained)


def test_the_published_format_is_rendered_to_the_letter(tokenizer: Tokenizer):
    assert render(tokenizer, TALK) == README
    assert render(tokenizer, TALK[:3], generate=False) == README[: README.index("User: And")]


@given(messages, st.booleans())
@quick
def test_ids_equal_those_of_transformers(tokenizer: Tokenizer, theirs: Any, talk: list[dict[str, str]], generate: bool):
    assume(not any(token in message["content"] for token in special.ORDER for message in talk))
    expected = theirs.apply_chat_template(talk, add_generation_prompt=generate, return_dict=False)
    assert encode_chat(tokenizer, talk, generate=generate) == expected
    assert render(tokenizer, talk, generate=generate) == theirs.apply_chat_template(
        talk, add_generation_prompt=generate, tokenize=False
    )


@given(
    st.lists(st.one_of(st.sampled_from([*special.ORDER, "<｜", "｜>", "\U000f0000"]), st.text(max_size=4)), max_size=8)
)
@quick
def test_a_message_cannot_forge_special_tokens(tokenizer: Tokenizer, parts: list[str]):
    content = "".join(parts)
    ids = encode_chat(tokenizer, [{"role": "user", "content": content}])
    assert [number for number in ids if number in tokenizer.control.values()] == [tokenizer.begin]
    assert tokenizer.decode(ids) == f"User: {content}\n\nAssistant:"


def test_templates_may_use_loops_conditions_and_json(tokenizer: Tokenizer):
    template = "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}{{ m | tojson }}{% endfor %}"
    assert render(Templated(tokenizer, template), [{"role": "é"}] * 3) == '{"role": "é"}' * 2  # ty: ignore


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% if %}", "refuses"),
        ("{{ messages[0]['content'] + 1 }}", "refuses"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "refuses"),
        ("{{ messages.append(1) }}", "refuses"),
        (None, "base model"),
    ],
)
def test_a_template_that_fails_or_reaches_out_is_a_model_error(
    tokenizer: Tokenizer, template: str | None, message: str
):
    with pytest.raises(ModelError, match=message):
        encode_chat(Templated(tokenizer, template), TALK)  # ty: ignore
