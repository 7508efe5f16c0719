"""Quality and queries for a PetaFLOP: from the plan, the report and `llmrank evaluate`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import JOB, Program


def test_quality_and_queries_for_a_petaflop_come_from_the_report(llmrank: Program, folder: Path) -> None:
    config = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    config |= {"num_attention_heads": 4, "vocab_size": 1000, "architectures": ["LlamaForCausalLM"]}
    Path("config.json").write_text(json.dumps(config))
    job = (*JOB, "--architecture", "config.json", "--report", "report.json")
    assert llmrank("rerank", *job, "--quiet").code == 0
    totals = json.loads(Path("report.json").read_text())["totals"]
    assert totals["queries_per_petaflop"] == pytest.approx(totals["queries"] / totals["flops"] * 1e15)
    told = llmrank("evaluate", "judged.qrels", "out.trec", "-m", "nDCG@10", "--report", "out=report.json", "--json")
    run = json.loads(told.out)["runs"]["out"]
    mean, of_query = run["measures"]["nDCG@10"]["value"], totals["flops"] / totals["queries"]
    assert run["efficiency"]["per_petaflop"]["nDCG@10"] == pytest.approx(mean / of_query * 1e15)
    shown = llmrank("evaluate", "judged.qrels", "out.trec", "-m", "nDCG@10", "--report", "out=report.json")
    assert "queries/PFLOP" in shown.out
    planned = json.loads(llmrank("plan", "rerank", *job, "--json").out)
    assert planned["flops"] == pytest.approx(totals["flops"], rel=0.05)
    assert llmrank("rerank", *JOB, "--ledger", "none", "--report", "plain.json", "--quiet").code == 0
    refused = llmrank("evaluate", "judged.qrels", "out.trec", "--report", "out=plain.json")
    assert "--architecture" in refused.error
