"""Cascades, examples and deadlines from the command line, and answers that serve another method."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import FILES, JOB, Program

STAGES = """
- write: query/facets
- method: sliding-window
  template: listwise/facets
- method: all-pairs
  depth: 4
  options: {aggregate: bradley-terry}
"""
CASCADE = ("--method", "cascade", "--option", "stages=stages.yaml")


def totals(out: str) -> dict[str, object]:
    told = json.loads(out)
    return {name: told[name] for name in ("questions", "ok", "calls", "reused", "statuses")}


@pytest.fixture
def stages(folder: Path) -> Path:
    (folder / "stages.yaml").write_text(STAGES)
    return folder / "stages.yaml"


class TestACascade:
    def test_is_planned_and_run_from_a_file_of_stages(self, llmrank: Program, stages: Path) -> None:
        planned = json.loads(llmrank("plan", "rerank", *JOB, *CASCADE, "--json").out)
        done = llmrank("rerank", *JOB, *CASCADE, "--json", "--report", "r.json")
        assert done.code == 0, done.err
        assert totals(done.out)["calls"] == planned["calls"] == (1 + 2 + 12) + (1 + 1 + 12) + 0
        report = json.loads(Path("r.json").read_text())
        assert report["queries"]["q2"]["parts"] == {"1": 1, "2": 2, "3": 12}
        assert report["queries"]["q2"]["score_kind"] == "strength"
        assert [stage.get("method") for stage in report["manifest"]["options"]["stages"]] == [
            None,
            "sliding-window",
            "all-pairs",
        ]

    def test_may_stand_in_the_file_of_the_job(self, llmrank: Program, stages: Path, folder: Path) -> None:
        first = llmrank("rerank", *JOB, *CASCADE, "--json", "--manifest", "m.json")
        expected = (folder / "out.trec").read_text()
        indented = STAGES.replace("\n", "\n  ")
        (folder / "job.yaml").write_text(f"method: cascade\nstages:\n{indented}\n")
        again = llmrank("rerank", *JOB, "--config", "job.yaml", "--json")
        assert (again.code, totals(again.out)["calls"]) == (0, 0), again.err
        assert (folder / "out.trec").read_text() == expected
        # So may what a manifest holds: the stages as they were read, whatever became of their file.
        stages.unlink()
        config = json.loads((folder / "m.json").read_text())["config"]
        (folder / "again.json").write_text(json.dumps(config))
        third = llmrank("rerank", "--config", "again.json", "--output", "third.trec", "--json")
        assert (third.code, totals(third.out)["calls"]) == (0, 0), third.err
        assert (folder / "third.trec").read_text() == expected
        assert totals(first.out)["questions"] == totals(third.out)["questions"]

    def test_with_a_bad_stage_is_refused_with_its_line(self, llmrank: Program, stages: Path) -> None:
        stages.write_text("- method: yes-no\n- method: all-pairs\n  dept: 4\n")
        refused = llmrank("rerank", *JOB, *CASCADE)
        assert refused.code == 2
        assert refused.error.startswith("stages.yaml:3: stage 2: dept is no key of such a stage")

    def test_may_name_a_model_for_a_stage(self, llmrank: Program, stages: Path) -> None:
        stages.write_text("- {method: yes-no, backend: lexical}\n- {method: all-pairs, depth: 3}\n")
        assert llmrank("rerank", *JOB, *CASCADE, "--manifest", "m.json").code == 0
        parts = json.loads(Path("m.json").read_text())["parts"]
        assert parts["2"]["model"]["kind"] == "simulated"

    def test_is_listed_with_what_it_costs(self, llmrank: Program) -> None:
        (cascade,) = [m for m in json.loads(llmrank("methods", "--json").out)["methods"] if m["name"] == "cascade"]
        assert cascade["options"] == {"stages": {"type": "Stages", "default": None}}
        assert "2101.05667" in cascade["source"]


def test_answers_serve_another_aggregate_without_a_call(llmrank: Program) -> None:
    pairs = (*JOB, "--method", "all-pairs", "--depth", "8", "--json")
    first = json.loads(llmrank("rerank", *pairs, "--option", "aggregate=bradley-terry").out)
    assert first["calls"] == 56 + 56
    for aggregate in ("pagerank", "wins", "elo"):
        told = json.loads(llmrank("rerank", *pairs, "--option", f"aggregate={aggregate}").out)
        assert (told["calls"], told["reused"], told["ok"]) == (0, first["calls"], first["ok"])


def test_answers_serve_another_method_and_a_deeper_list(llmrank: Program) -> None:
    assert llmrank("rerank", *JOB, "--method", "all-pairs", "--depth", "8").code == 0
    told = json.loads(llmrank("rerank", *JOB, "--method", "heapsort", "--depth", "8", "--json").out)
    assert (told["calls"], told["reused"]) == (0, told["questions"])
    deeper = json.loads(llmrank("rerank", *JOB, "--method", "all-pairs", "--depth", "9", "--json").out)
    assert (deeper["calls"], deeper["reused"]) == (2 * 16, 112)


class TestExamples:
    SHOWN = ("--method", "all-pairs", "--depth", "3", "--template", "pairwise/few-shot", "--examples", "e.jsonl")

    @pytest.fixture(autouse=True)
    def examples(self, folder: Path) -> None:
        pair = {"left": "a good text", "right": "another", "answer": "left"}
        lines = [{"query_id": i, "query": f"what is thing {i}", **pair} for i in ("q1", "x1", "x2")]
        (folder / "e.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def test_are_shown_but_for_the_query_itself(self, llmrank: Program) -> None:
        done = llmrank("rerank", *JOB, *self.SHOWN, "--report", "r.json")
        assert done.code == 0, done.err
        assert "note: 1 times an example was kept out" in done.err
        report = json.loads(Path("r.json").read_text())
        assert [report["queries"][q]["kept_out"] for q in ("q1", "q2")] == [1, 0]
        assert report["totals"]["kept_out"] == 1
        assert report["manifest"]["inputs"].keys() >= {"e.jsonl"}
        assert (report["manifest"]["config"]["shots"], report["manifest"]["config"]["select"]) == (2, "bm25")

    def test_are_planned_as_they_are_shown(self, llmrank: Program) -> None:
        planned = json.loads(llmrank("plan", "rerank", *JOB, *self.SHOWN, "--json").out)
        told = json.loads(llmrank("rerank", *JOB, *self.SHOWN, "--json").out)
        assert (planned["calls"], planned["prompt_tokens"]) == (told["calls"], told["prompt_tokens"])

    def test_need_a_template_that_has_a_place_for_them(self, llmrank: Program) -> None:
        refused = llmrank("rerank", *JOB, "--method", "all-pairs", "--examples", "e.jsonl")
        assert (refused.code, "pairwise/few-shot" in refused.error) == (2, True)

    @pytest.mark.parametrize(
        ("flags", "problem"),
        [
            (("--shots", "4"), "--shots 4: e.jsonl holds 3 examples"),
            (("--shots", "0"), "--shots 0: "),
            (("--select", "best"), "--select best: there are bm25, difficulty and random"),
        ],
    )
    def test_are_checked_before_anything_is_asked(self, llmrank: Program, flags: tuple[str, ...], problem: str) -> None:
        refused = llmrank("rerank", *JOB, *self.SHOWN, *flags)
        assert refused.code == 2
        assert refused.error.startswith(problem)


def test_a_deadline_that_ends_queries_early_is_told(llmrank: Program) -> None:
    slow = ("--backend", "simulated:judged.qrels?latency=60", "--deadline", "0.05")
    done = llmrank("rerank", *FILES, *slow, "--output", "out.trec", "--report", "r.json")
    assert (done.code, done.out) == (0, "")
    assert "note: --deadline 0.05 ended 2 of 3 queries early; they have the best order so far" in done.err
    rows = json.loads(Path("r.json").read_text())["queries"]
    assert [rows[q]["status"] for q in ("q2", "q1", "q3")] == ["partial", "partial", "unchanged"]
    assert [line.split()[2] for line in Path("out.trec").read_text().splitlines()[:3]] == ["q2-d0", "q2-d1", "q2-d2"]
