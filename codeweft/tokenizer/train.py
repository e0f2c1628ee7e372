"""Stage tokenizer: documents to a byte-level BPE tokenizer with the published pre-tokenizer and special tokens.

In:  corpus/documents/*.parquet; or, with `init`, another folder's tokenizer.
Out: tokenizer.json and tokenizer_config.json, which `transformers.AutoTokenizer` loads.
Source: DeepSeek-LLM §2.1 through DeepSeek-Coder-V2 §2; the published one learned from about 24 GB.

Unusual: special tokens stand behind the ordinary ones, in the published order. The same documents give the same bytes.
"""

from collections.abc import Iterator

import numpy as np
import tokenizers
from tokenizers import AddedToken, decoders, models, processors, trainers

from codeweft.base.artifacts import digest_file
from codeweft.base.errors import InputError
from codeweft.base.progress import say, track
from codeweft.base.runs import Run
from codeweft.base.seeds import generator
from codeweft.tokenizer import special
from codeweft.tokenizer.catalogue import Catalogue, read_catalogue
from codeweft.tokenizer.chat import TEMPLATE
from codeweft.tokenizer.config import TokenizerConfig
from codeweft.tokenizer.load import FILES, Tokenizer, load_tokenizer
from codeweft.tokenizer.pretokenizer import alphabet, pre_tokenizer

KINDS = ("code", "math", "text")
# "Fast" classes exist in every version of transformers, and no other rewrites the pre-tokenizer when it loads.
CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": special.BEGIN,
    "eos_token": special.END,
    "pad_token": special.END,
    "add_bos_token": True,
    "add_eos_token": False,
    "clean_up_tokenization_spaces": False,
    "chat_template": TEMPLATE,
}


def inputs(config: TokenizerConfig) -> dict[str, str]:
    """The files of the tokenizer to take over, if any."""
    if config.init is None:
        return {}
    load_tokenizer(config.init)
    return {f"init/{name}": digest_file(config.init / name) for name in FILES}


def run(config: TokenizerConfig, run: Run) -> dict[str, float]:
    """Train or take over a tokenizer and measure it on held-out documents; headline: bytes per token."""
    catalogue = read_catalogue(run.read("corpus"))
    if config.init is None:
        sample = draw_sample(catalogue, config, run.seed)
        run.counts["trained_bytes"] = int(catalogue.bytes_N[sample].sum())
        trained = train(texts(catalogue, sample), config.vocabulary, config.longest_token)
        run.write(FILES[0], trained.to_str(pretty=True))
        run.write(FILES[1], CONFIG)
    else:
        for name in FILES:
            run.write(name, (config.init / name).read_bytes())
    tokenizer = load_tokenizer(run.folder)
    if config.init is None and tokenizer.size < config.vocabulary:
        say(f"tokenizer: the sample gives {tokenizer.size} tokens, not {config.vocabulary}: no more pairs occur twice.")
    ratios = measure(catalogue, tokenizer, round(config.held_out_megabytes * 1e6), run.seed)
    run.counts |= {"vocabulary": tokenizer.size} | {f"bytes_per_token_{kind}": ratios[kind] for kind in ratios}
    return {"bytes_per_token": run.counts.pop("bytes_per_token_all")}


def draw_sample(catalogue: Catalogue, config: TokenizerConfig, seed: int) -> np.ndarray:
    """Numbers of the training documents to learn from: of each kind, in an order drawn by seed, what fits its limit."""
    drawn = [
        _fitting(catalogue, kind, "train", config.limit(kind), generator(seed, "tokenizer", "sample", kind))
        for kind in KINDS
    ]
    sample = np.concatenate(drawn)
    if not len(sample):
        raise InputError("There is no training document to learn a tokenizer from.", "Give the corpus more sources.")
    return sample


def _fitting(catalogue: Catalogue, kind: str, split: str, limit: int, random: np.random.Generator) -> np.ndarray:
    order = random.permutation(catalogue.numbers(kind, split))
    order = order[catalogue.bytes_N[order] <= limit]
    return order[: int(np.searchsorted(np.cumsum(catalogue.bytes_N[order]), limit, side="right"))]


def texts(catalogue: Catalogue, numbers: np.ndarray) -> Iterator[str]:
    """The documents' texts under a progress bar, one row group in memory at a time."""
    groups = list(catalogue.groups(numbers))
    for group, _ in track(groups, "tokenizer", len(groups), "groups"):
        for row in group.read(("text",)):
            yield row["text"]


def train(sample: Iterator[str], vocabulary: int, longest_token: int) -> tokenizers.Tokenizer:
    """Learn byte pairs until there are `vocabulary` ids, special tokens included."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(special.ORDER),
        min_frequency=2,
        initial_alphabet=alphabet(),
        # every symbol of the training text is a byte's, so the alphabet holds them all
        limit_alphabet=len(alphabet()),
        max_token_length=longest_token + 1,  # the library stops one below it
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample, trainer)
    for content in special.ORDER:
        token = AddedToken(content, special=content in special.FLAGGED, normalized=False)
        assert tokenizer.add_tokens([token]) == 1
    begin = tokenizer.token_to_id(special.BEGIN)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{special.BEGIN} $A",
        pair=f"{special.BEGIN} $A {special.BEGIN} $B",
        special_tokens=[(special.BEGIN, begin)],
    )
    return tokenizer


def measure(catalogue: Catalogue, tokenizer: Tokenizer, limit: int, seed: int) -> dict[str, float]:
    """Bytes per token on held-out documents of each kind and of "all", in the proportion in which they are held out."""
    held_out = {kind: catalogue.numbers(kind, "held-out") for kind in KINDS}
    whole = sum(int(catalogue.bytes_N[numbers].sum()) for numbers in held_out.values())
    if not whole:
        raise InputError("There is no held-out document to measure on.", "Raise corpus.held_out_fraction.")
    size, tokens = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    for kind, numbers in held_out.items():
        share = round(limit * float(catalogue.bytes_N[numbers].sum()) / whole)
        drawn = _fitting(catalogue, kind, "held-out", share, generator(seed, "tokenizer", "held-out", kind))
        for group, part in catalogue.groups(drawn if len(drawn) else numbers[:1]):
            encoded = tokenizer.encode_batch([row["text"] for row in group.read(("text",))])
            size[kind] += int(catalogue.bytes_N[part].sum())
            tokens[kind] += sum(map(len, encoded))
    ratios = {kind: round(size[kind] / tokens[kind], 4) for kind in KINDS if tokens[kind]}
    return ratios | {"all": round(sum(size.values()) / sum(tokens.values()), 4)}
