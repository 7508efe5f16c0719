"""Recorded replies of real models, read and applied window by window, and recorded verdicts on pairs."""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from llmrank.llm.types import Reply
from llmrank.templates.parsers import CompareParser, OrderParser, ScoreParser


def run_of(path: Path) -> dict[str, list[str]]:
    run: dict[str, list[str]] = defaultdict(list)
    with gzip.open(path, "rt") as lines:
        for line in lines:
            query, _, document, *_ = line.split()
            run[query].append(document)
    return run


def rows_of(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt") as lines:
        return [json.loads(line) for line in lines]


def replayed(shared_data: Path, name: str) -> tuple[dict[str, list[str]], dict[str, list[str]], Counter[str]]:
    """First stage and reranked run, and how often each status (or reason of failure) came up."""
    first_stage = run_of(shared_data / "runs" / "dl19.BM25.trec.gz")
    rankings = {query: list(documents) for query, documents in first_stage.items()}
    seen: Counter[str] = Counter()
    for call in rows_of(shared_data / "listwise_replay" / f"{name}.jsonl.gz"):
        ranking = rankings[call["qid"]]
        window = slice(call["start"], call["end"])
        order = OrderParser().read(Reply(call["response"]), call["end"] - call["start"])
        seen[order.reason or order.status] += 1
        ranking[window] = order.apply(ranking[window])
    return first_stage, rankings, seen


@pytest.mark.parametrize("name", ["rankvicuna_7b", "rankvicuna_7b_noaug", "vicuna7b_ckpt800"])
def test_replaying_the_replies_gives_the_recorded_run(shared_data: Path, name: str) -> None:
    _, rankings, seen = replayed(shared_data, name)
    recorded = run_of(shared_data / "listwise_replay" / f"{name}.recorded.trec.gz")
    assert len(recorded) == 43
    assert rankings == recorded
    assert seen.total() == 387
    assert set(seen) <= {"ok", "repaired"}


def test_a_count_of_passages_leaves_every_window_as_it_was(shared_data: Path) -> None:
    first_stage, rankings, seen = replayed(shared_data, "vicuna13b_v15")
    assert seen["no-identifier"] == 384
    assert rankings == first_stage  # the three others keep the order shown, too


def test_numbers_of_lines_are_no_identifiers(shared_data: Path) -> None:
    for call in rows_of(shared_data / "listwise_replay" / "vicuna7b_v15.jsonl.gz"):
        order = OrderParser().read(Reply(call["response"]), len(call["docids"]))
        if call["response"].startswith("1. [14] > 2. [15]"):
            assert order.permutation is not None
            assert order.permutation[0] == 13
            break
    else:
        pytest.fail("the reply that numbers its identifiers is gone from the data")
    _, _, seen = replayed(shared_data, "vicuna7b_v15")
    assert seen == {"ok": 365, "repaired": 19, "no-identifier": 3}


def test_recorded_verdicts_on_pairs(shared_data: Path) -> None:
    """The published reading of these replies is a plain pattern: ours agrees wherever there is a verdict at all."""
    parser = CompareParser()
    outcomes: Counter[str] = Counter()
    for row in rows_of(shared_data / "llmbar" / "llmbar.Natural.results.jsonl.gz"):
        if row["mode"] in ("Swap", "Swap_CoT") or not isinstance(row["results"][-1], dict):
            continue
        for swapped in (False, True):
            result = row["results"][-1].get(f"swap = {swapped}", {})
            if "completion" not in result:
                continue
            answer = parser.read(Reply(result["completion"][0] or ""))
            left = "2" if swapped else "1"
            recorded = {None: None, left: "left"}.get(result["winner"], "right")
            outcomes["same" if answer.winner == recorded else "other" if answer.usable else "failed"] += 1
    assert outcomes.total() == 9200
    assert outcomes["same"] > 0.995 * 9200
    assert outcomes["failed"] < 10


def test_recorded_scores(shared_data: Path) -> None:
    parser, seen = ScoreParser(0, 10), 0
    for row in rows_of(shared_data / "llmbar" / "llmbar.Natural.results.jsonl.gz"):
        result = row["results"][-1]
        for key in ("score_1", "score_2"):
            said = result.get(key, [""])[0] if isinstance(result, dict) else ""
            if said.isdigit():
                assert parser.read(Reply(said)).value == int(said)
                seen += 1
    assert seen > 500
