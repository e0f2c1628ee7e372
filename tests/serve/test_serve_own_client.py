"""Our own client and our own server understand each other."""

import asyncio
from pathlib import Path

from tiny_server import Served

from codeweft.engine.engine import Engine
from codeweft.engine.remote import RemoteCompletion, RemoteConfig, RemoteModel
from codeweft.engine.request import Request
from codeweft.tokenizer.fim import infill_prompt


def test_our_client_gets_what_the_engine_says(served: Served, folder: Path):
    async def work() -> list[RemoteCompletion]:
        async with RemoteModel(RemoteConfig(f"{served.url}/v1", retries=0)) as model:
            plain = await model.complete("def f(x):", max_tokens=12, temperature=0.7, seed=5)
            return [plain, await model.complete("def f(x):\n", suffix="\n\n", max_tokens=6, temperature=0)]

    plain, infilled = asyncio.run(work())
    engine = Engine.load(folder, rows=4)  # not the served one, whose thread may still be at work
    ids = tuple(infill_prompt(engine.tokenizer, "def f(x):\n", "\n\n"))
    ours = engine.generate([Request(engine.prompt("def f(x):"), 12, 0.7, seed=5), Request(ids, 6)])
    assert [plain.text, infilled.text] == [each.text for each in ours]
    assert [plain.finish, infilled.finish] == [each.finish for each in ours]
