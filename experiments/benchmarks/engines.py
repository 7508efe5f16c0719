"""vLLM in process: what we leave of the throughput of one bare `LLM.generate`, and what our order saves of its prefill.

Needs vLLM (`make test-engines` builds an environment with it); without it says so and measures nothing. The model is
`engines.py MODEL_FOLDER`, else the tiny one of the tests. On a CPU the engine's options are those of the tests too; the
figures there say how much is lost and saved, not how fast anything is.
"""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from llmrank import Document, Query, Reranker
from llmrank.llm.backends import open_backend
from llmrank.llm.types import Request, Sampling
from llmrank.templates import load

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "DO_NOT_TRACK": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "OMP_NUM_THREADS": "1",
}
ON_CPU = {"dtype": "float32", "enforce_eager": True, "max_model_len": 1024}
PROMPTS, REPETITIONS, DOCUMENTS = 512, 5, 50
BLOCK = 32  # tokens that the prefix cache holds or lacks together: the fewest on a CPU, where a GPU takes 16
WORDS = ("river", "valley", "water", "glacier", "dam", "flood", "stone", "bridge", "field", "town", "mill", "ship")
QUERY = Query("q", "what flows through the valley")
GRADE, PREFER = load("pointwise/yes-no"), load("pairwise/prefer")
ONE_TOKEN = Sampling(max_tokens=1, logprobs=20)
OUT_OF_REACH = """\
  For one query half of what arbitrary order computes is out of reach. The second passage stands behind another first
  one in every prompt, and is computed each time with what follows it. Arbitrary order computes both passages (the words
  before them are in its cache too), the best order one of the two: a little more than half, the less the longer
  passages are. Where queries of some length take turns, arbitrary order computes them, too, time and again."""


def texts(n: int, words: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=words)) + f" {i}." for i in range(n)]


def bare(model: Path, **options: Any) -> Any:
    from vllm import LLM

    return LLM(str(model), **ON_CPU, **options)


def ours(model: Path, **options: Any) -> Any:
    backend: Any = open_backend(f"vllm:{model}", engine_options=ON_CPU | options)
    asyncio.run(backend.ready())
    return backend


def seconds(work: Callable[[], object], forget: Callable[[], object]) -> float:
    """How long it takes with an empty prefix cache."""
    forget()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def throughput(model: Path) -> None:
    from vllm import SamplingParams

    options = {"block_size": 32, "max_num_seqs": 64}
    llm, backend = bare(model, **options), ours(model, **options)
    documents = [Document(f"d{i}", text) for i, text in enumerate(texts(PROMPTS, 40))]
    requests = [Request(GRADE.render(QUERY, [d.text]).messages, sampling=ONE_TOKEN) for d in documents]
    tokenizer = llm.get_tokenizer()
    chats = [[{"role": role, "content": content} for role, content in r.messages] for r in requests]
    prompts = [tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in chats]
    params = SamplingParams(max_tokens=1, temperature=0.0, logprobs=20)

    async def complete() -> None:
        await asyncio.gather(*map(backend.complete, requests))

    def job(ledger: str) -> None:
        settings = {"ledger": ledger, "concurrency": backend.concurrency, "timeout": 600}
        with Reranker("pointwise", backend=backend, template=GRADE, **settings) as reranker:
            ranking = reranker.rank(QUERY, documents)
            assert ranking.row.ok == PROMPTS, ranking.row

    def with_ledger() -> None:
        with tempfile.TemporaryDirectory() as folder:
            job(f"{folder}/ledger.db")

    works: dict[str, Callable[[], object]] = {
        "one bare LLM.generate": lambda: llm.generate(prompts, params, use_tqdm=False),
        "the backend alone": lambda: asyncio.run(complete()),
        "a whole job, no ledger": lambda: job("none"),
        "a whole job with a ledger": with_ledger,
    }

    def forget() -> None:
        llm.reset_prefix_cache()
        backend._engine.engine.reset_prefix_cache()

    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(REPETITIONS + 1):  # in turn, so that what else the machine does falls on all
        for name, work in works.items():
            taken[name].append(seconds(work, forget))
    base = taken.pop("one bare LLM.generate")[1:]
    print(f"{PROMPTS} prompts, one token each with 20 logprobs; best of {REPETITIONS}, after one to warm up")
    print(f"  one bare LLM.generate      {PROMPTS / min(base):8.1f} prompts/s")
    for name, times in taken.items():
        ratio = median(b / t for b, t in zip(base, times[1:], strict=True))
        best = min(base) / min(times[1:])
        print(
            f"  {name:26} {PROMPTS / min(times[1:]):8.1f} prompts/s   {best:.2f}x (median {ratio:.2f}x; at least 0.9x)"
        )
    backend.close()


class Job(NamedTuple):
    """All pairs of 50 documents for each of several queries."""

    queries: int
    asked: int
    """Words of a query."""
    shown: int
    """Words of a document."""
    blocks: int
    """Of the cache."""

    def prompts(self) -> list[tuple[tuple[str, str], ...]]:
        made = []
        for seed, text in enumerate(texts(self.queries, self.asked, seed=-1)):
            pairs = itertools.permutations(texts(DOCUMENTS, self.shown, seed), 2)
            made += [PREFER.render(Query("q", text), pair).messages for pair in pairs]
        return made


JOBS = (Job(1, 6, 30, 48), Job(1, 6, 100, 120), Job(12, 30, 30, 48))


def prefill(model: Path, job: Job) -> None:
    """All pairs in a cache that holds a few prompts: prompt tokens computed, by vLLM's own counts."""
    from vllm import SamplingParams

    options = {"block_size": BLOCK, "max_num_seqs": 4, "num_gpu_blocks_override": job.blocks}
    requests = [Request(messages, sampling=ONE_TOKEN) for messages in job.prompts()]
    random.Random(1).shuffle(requests)  # the order of arrival: of queries that take turns, of a sample, of sorts
    llm = bare(model, **options)
    tokenizer = llm.get_tokenizer()
    chats = [[{"role": role, "content": content} for role, content in r.messages] for r in requests]
    prompts = [tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in chats]
    outputs = llm.generate(prompts, SamplingParams(max_tokens=1, temperature=0.0), use_tqdm=False)
    total = sum(len(output.prompt_token_ids) for output in outputs)
    arbitrary = total - sum(output.num_cached_tokens for output in outputs)
    ids = [output.prompt_token_ids for output in outputs]
    least, finer = (computed_once(ids, block) for block in (BLOCK, BLOCK // 2))
    del llm
    backend = ours(model, **options)

    async def complete() -> Sequence[Any]:
        return await asyncio.gather(*map(backend.complete, requests))

    replies = asyncio.run(complete())
    aware = total - sum(reply.cached_tokens for reply in replies)
    assert aware == backend.computed_tokens
    backend.close()
    mean = total / len(prompts)
    print(
        f"all pairs of {DOCUMENTS} documents of {job.shown} words for {job.queries} queries of {job.asked} words: "
        f"{len(prompts)} prompts\n  of {mean:.0f} tokens on average, arriving shuffled; "
        f"the cache holds {job.blocks * BLOCK / mean:.0f} of them"
    )
    print(f"  as they arrive             {arbitrary:9} tokens computed of {total}")
    print(
        f"  by their heads             {aware:9} computed: {aware / arbitrary:.2f} of that, {aware / total:.2f} of all"
    )
    print(f"  in a cache without end     {least:9} computed: {least / arbitrary:.2f} and {least / total:.2f}")
    print(f"  the same in finer blocks   {finer:9} computed: {finer / arbitrary:.2f} and {finer / total:.2f}")


def computed_once(prompts: Sequence[Sequence[int]], block: int) -> int:
    """The tokens that are computed where no block is ever computed twice."""
    known: set[tuple[int, ...]] = set()
    computed = 0
    for ids in prompts:
        heads = [tuple(ids[:end]) for end in range(block, len(ids), block)]  # the last token is always computed
        cached = next((len(head) for head in reversed(heads) if head in known), 0)
        computed += len(ids) - cached
        known.update(heads)
    return computed


def tiny(folder: str) -> Path:
    script = Path(__file__).parent.parent.parent / "tests" / "engines" / "tiny_model.py"
    subprocess.run([sys.executable, str(script), folder], check=True, capture_output=True)
    return Path(folder)


def main() -> None:
    if importlib.util.find_spec("vllm") is None:
        print("engines: vLLM is not installed here, nothing was measured")
        return
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(sys.argv[1]) if len(sys.argv) > 1 else tiny(folder)
        throughput(model)
        for job in JOBS:
            prefill(model, job)
        print(OUT_OF_REACH)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
