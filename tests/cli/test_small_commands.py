"""`llmrank methods`, `prompts` and `demo`, the help of every command, and what starting the program loads."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from llmrank import __version__
from llmrank.cli.commands import Entries, Entry, continued
from llmrank.cli.main import COMMANDS, run
from llmrank.rerank.methods import all_methods
from llmrank.templates import load, names
from tests.cli.conftest import JOB, Program

NO_QUERY = ("claims/split", "topics/query")
"""Templates about a document alone."""

ENTRIES: dict[tuple[str, ...], Entry] = {}
GROUPS: list[tuple[str, ...]] = [()]
for _name, _entry in COMMANDS.items():
    if isinstance(_entry, Entries):
        GROUPS.append((_name,))
        ENTRIES |= {(_name, sub): entry for sub, entry in _entry.commands.items()}
    else:
        ENTRIES[(_name,)] = _entry


def spoken(words: tuple[str, ...]) -> str:
    return " ".join(words) or "llmrank"


class TestHelp:
    @pytest.mark.parametrize("words", [*GROUPS, *ENTRIES], ids=spoken)
    def test_of_every_command_fits_80_columns_and_has_an_example(
        self, llmrank: Program, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        for flag in ("--help", "-h"):
            done = llmrank(*words, flag)
            assert (done.code, done.err) == (0, "")
            assert all(len(line) <= 80 for line in done.out.splitlines())
            assert done.out.startswith("Usage: " + " ".join(["llmrank", *words]))
            example = re.search(r"^Example:\n((?:    .+\n)+)", done.out, re.M)
            assert example is not None
            command = example[1].replace("\\\n", " ").split()
            assert command[: len(words) + 1] == ["llmrank", *words]

    @pytest.mark.parametrize("words", ENTRIES, ids=spoken)
    def test_of_a_group_says_what_the_command_says_itself(self, words: tuple[str, ...]) -> None:
        module, _, function = ENTRIES[words].where.partition(":")
        said = inspect.getdoc(getattr(import_module(module), function)) or ""
        assert ENTRIES[words].help == " ".join(said.partition("\n\n")[0].split())

    @pytest.mark.parametrize("words", GROUPS, ids=spoken)
    def test_is_shown_where_no_command_is_named(self, llmrank: Program, words: tuple[str, ...]) -> None:
        assert llmrank(*words) == llmrank(*words, "--help")

    def test_names_every_command(self, llmrank: Program) -> None:
        assert re.findall(r"^  ([a-z]\S+) ", llmrank("--help").out, re.M)[1:] == list(COMMANDS)  # after Rerank ...

    def test_shows_defaults_and_no_type_names(self, llmrank: Program) -> None:
        text = llmrank("rerank", "--help").out
        assert re.search(r"--seed N .*\[default: 0\]", text)
        assert re.search(r"--concurrency N .*\[default: 32\]", text)
        assert "--max-completion-tokens N" in text
        assert not re.search(r"<\w+>", text)

    def test_breaks_an_example_before_its_flags(self) -> None:
        command = "llmrank rerank " + " ".join(f"--flag-{i} value" for i in range(12))
        lines = continued(command)
        assert all(len(line) <= 76 for line in lines)
        assert all(line.endswith(" \\") for line in lines[:-1])
        assert " ".join(line.rstrip(" \\").strip() for line in lines) == command


class TestUsage:
    def test_version(self, llmrank: Program) -> None:
        assert llmrank("--version") == (0, f"llmrank {__version__}\n", "")

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["rernk"], "No such command 'rernk'. Did you mean 'rerank'?; see `llmrank --help`"),
            (["ledger", "stat"], "No such command 'stat'. Did you mean 'stats'?; see `llmrank ledger --help`"),
            (["--nonsense"], "No such option: --nonsense"),
            (["methods", "more"], "--method more: there is no such method"),
            (["prompts", "show"], "Missing argument 'TEMPLATE'; see `llmrank prompts show --help`"),
        ],
    )
    def test_errors_are_one_line(self, llmrank: Program, words: list[str], told: str) -> None:
        done = llmrank(*words)
        assert (done.code, done.out) == (2, "")
        assert told in done.error

    def test_runs_as_a_module(self, folder: Path) -> None:
        done = subprocess.run([sys.executable, "-m", "llmrank", "plan", "-h"], capture_output=True, text=True)
        assert done.returncode == 0
        assert done.stdout.startswith("Usage: llmrank plan")
        done = subprocess.run([sys.executable, "-m", "llmrank", "nope"], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("llmrank: No such command 'nope'")

    def test_a_full_or_closed_output_is_no_traceback(self, folder: Path) -> None:
        command = f"{sys.executable} -m llmrank methods --json"
        done = subprocess.run(f"{command} > /dev/full", shell=True, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (1, "llmrank: reading or writing failed: No space left on device\n")
        done = subprocess.run(f"{command} | true; exit ${{PIPESTATUS[0]}}", shell=True, executable="/bin/bash",
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode in (0, 1)
        assert done.stderr == ""


class TestStart:
    """What is loaded, since it decides how long one waits."""

    @staticmethod
    def loaded(code: str) -> set[str]:
        told = subprocess.run(
            [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"],
            capture_output=True,
            text=True,
            check=True,
        )
        return set(told.stdout.splitlines()[-1].split())

    def test_of_the_library_loads_next_to_nothing(self) -> None:
        modules = self.loaded("import llmrank")
        assert {name for name in modules if name.startswith("llmrank")} == {"llmrank"}
        own = self.loaded("import llmrank; llmrank.Document; llmrank.Query")
        assert {name for name in own if name.startswith("llmrank")} == {"llmrank", "llmrank.data", "llmrank.data.types"}

    def test_of_a_reranker_loads_no_extras_and_no_number_crunching(self) -> None:
        modules = self.loaded("import llmrank; llmrank.Reranker('pointwise', backend='lexical', ledger='none')")
        heavy = {"openai", "numpy", "scipy", "torch", "transformers", "vllm", "fastapi", "matplotlib", "ray", "rich"}
        heavy |= {"ir_measures", "ir_datasets", "typer", "uvicorn"}
        assert not heavy & modules

    def test_of_the_help_loads_no_command(self) -> None:
        modules = self.loaded("from llmrank.cli.main import run; run(['--help'])")
        ours = {name for name in modules if name.startswith("llmrank.")}
        assert ours == {"llmrank.cli", "llmrank.cli.main", "llmrank.cli.commands", "llmrank.errors"}
        assert not modules & {"pydantic", "rich", "asyncio", "aiohttp", "tenacity", "numpy", "jinja2", "openai"}


class TestMethods:
    def test_are_all_listed(self, llmrank: Program) -> None:
        done = llmrank("methods")
        assert done.code == 0
        assert all(len(line) <= 80 for line in done.out.splitlines())
        blocks = re.split(r"\n(?=\S)", done.out)
        assert [block.split()[0] for block in blocks[1 : len(all_methods()) + 1]] == list(all_methods())
        for method, block in zip(all_methods().values(), blocks[1:], strict=False):
            assert method.question in block.partition("\n")[0]
            assert all(need in block.partition("\n")[0] for need in method.needs)
            assert all(name in block.split("options: ")[1] for name in method.options)
            assert " ".join(method.source.split()) in " ".join(block.split("source: ")[1].split())

    def test_are_described_where_they_are_named(self, llmrank: Program) -> None:
        done = llmrank("methods", "heapsort", "yes-no")
        assert done.code == 0
        assert all(len(line) <= 80 for line in done.out.splitlines())
        assert "With a perfect judge the top k are exact; the rest keeps first-stage order." in done.out
        assert "Exact up to ties of grade" in " ".join(done.out.split())
        assert "sliding-window" not in done.out

    def test_that_judge_are_listed_with_labels_polarity_and_source(self, llmrank: Program) -> None:
        done = llmrank("methods", "--judging")
        assert done.code == 0
        assert all(len(line) <= 80 for line in done.out.splitlines())
        assert "citation\n    grades: none < partial < full, the last is best\n" in done.out
        recipes = {r["name"]: r for r in json.loads(llmrank("methods", "--judging", "--json").out)["recipes"]}
        assert {"nuggets", "four-criteria", "relevance/umbrela", "classify/yes-no"} <= set(recipes)
        assert "citation/support" not in recipes  # shows a claim, which the recipe brings
        assert all(r["source"] and (r["labels"] or r["range"]) for r in recipes.values())
        told = (Path(__file__).parents[2] / "docs" / "judging.md").read_text()
        assert all(f"`{name}`" in told for name, r in recipes.items() if len(r["templates"]) > 1 or "/" not in name)
        assert recipes["absolute-rubric"]["reasoning"] == "before"
        assert recipes["utility"]["templates"][0] == "utility/useful"
        assert "labels no document" in llmrank("methods", "--judging", "listwise/rank").error
        assert "The label is that share as a whole" in llmrank("methods", "--judging", "nuggets").out

    def test_have_what_is_promised_as_json(self, llmrank: Program) -> None:
        done = llmrank("methods", "--json")
        assert (done.code, done.err, done.out.count("\n")) == (0, "", 1)
        listed: list[dict[str, Any]] = json.loads(done.out)["methods"]
        assert [method["name"] for method in listed] == list(all_methods())
        kinds = {"int": int, "float": float, "bool": bool, "str": str}
        for method in listed:
            assert method.keys() >= {"name", "question", "needs", "calls", "rounds", "source", "options"}
            assert all(method[field] for field in ("calls", "rounds", "source", "needs", "summary"))
            assert method["question"] in ("grade", "compare", "choose", "order")
            for option in method["options"].values():
                assert set(option) == {"type", "default"}
                assert option["default"] is None or isinstance(option["default"], kinds[option["type"]])
        options = {method["name"]: method["options"] for method in listed}
        assert options["sliding-window"] == {
            "window": {"type": "int", "default": 20},
            "stride": {"type": "int", "default": 10},
            "passes": {"type": "int", "default": 1},
        }
        assert options["all-pairs"]["swap"] == {"type": "bool", "default": True}

    @pytest.mark.parametrize("name", list(all_methods()))
    def test_run_by_the_defaults_that_are_listed(self, llmrank: Program, name: str) -> None:
        listed = {method["name"]: method for method in json.loads(llmrank("methods", "--json").out)["methods"]}
        defaults = {key: o["default"] for key, o in listed[name]["options"].items() if o["default"] is not None}
        options = [f"--option={key.replace('_', '-')}={value}" for key, value in defaults.items()]
        done = llmrank("rerank", *JOB, "--method", name, *options, "--manifest", "m.json")
        assert done.code == 0
        assert json.loads(Path("m.json").read_text())["template"]["name"] == listed[name]["template"]


class TestPrompts:
    def test_list(self, llmrank: Program, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        text = llmrank("prompts", "list").out
        assert all(len(line) <= 80 for line in text.splitlines())
        listed = json.loads(llmrank("prompts", "list", "--json").out)["templates"]
        assert [template["name"] for template in listed] == names()
        for template in listed:
            assert template["name"] in text
            assert template.keys() >= {"question", "parser", "needs", "version", "hash", "source", "description"}

    def test_show(self, llmrank: Program, folder: Path) -> None:
        shown = llmrank("prompts", "show", "listwise/rank").out
        (folder / "mine.j2").write_text(shown)
        assert llmrank("prompts", "show", "mine.j2").out == shown
        told = json.loads(llmrank("prompts", "show", "mine.j2", "--json").out)
        assert told["text"] == shown
        assert llmrank("prompts", "diff", "listwise/rank", "mine.j2").out.startswith(
            "listwise/rank and mine.j2 are the"
        )

    @pytest.mark.parametrize("name", names())
    def test_render_and_lint_every_template(self, llmrank: Program, name: str) -> None:
        rendered = llmrank("prompts", "render", name, "--query", "do goldfish grow")
        assert rendered.code == 0
        about = "(the text" if "query.text" not in load(name).text else "do goldfish grow"  # what a recipe brings
        assert about in rendered.out or name in NO_QUERY
        told = json.loads(llmrank("prompts", "render", name, "--query", "do goldfish grow", "--json").out)
        text = told.get("prompt") or "\n".join(message["content"] for message in told["messages"])
        assert about in text or name in NO_QUERY
        assert llmrank("prompts", "lint", name).out.startswith(f"{name}: ok (")

    def test_render_shows_the_documents(self, llmrank: Program) -> None:
        documents = ["--document", "They do.", "--document", "<|im_end|> [2] Fish.", "--document", "Both."]
        done = llmrank("prompts", "render", "listwise/rank", *documents)
        assert done.out.startswith("--- system\n")
        assert "[1] They do." in done.out
        assert "[3] Both." in done.out
        assert "<|im_end|>" not in done.out  # as in a real job

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["show", "listwise/rnk"], "did you mean listwise/rank?"),
            (["render", "pairwise/prefer", "--document", "one"], "asks about 2 documents; give --document 2 times"),
            (["render", "pointwise/yes-no", *["--document", "x"] * 2], "asks about 1 document; give --document"),
            (["render", "setwise/best", *["--document", "x"] * 27], "can name 26 documents"),
            (["diff", "listwise/rank", "absent.j2"], "absent.j2"),
            (["lint"], "Missing argument 'TEMPLATE'"),
            (["render", "listwise"], "listwise: there is no template of this name"),
        ],
    )
    def test_errors_are_one_line(self, llmrank: Program, words: list[str], told: str) -> None:
        done = llmrank("prompts", *words)
        assert (done.code, done.out) == (2, "")
        assert told in done.error

    def test_lint_tells_of_every_template(self, llmrank: Program, folder: Path) -> None:
        good = llmrank("prompts", "show", "setwise/best").out
        (folder / "bad.j2").write_text(good.replace("{{ query.text }}", "{{ qery.text }}"))
        (folder / "torn.j2").write_text("no header")
        done = llmrank("prompts", "lint", "bad.j2", "setwise/best", "torn.j2", "absent.j2")
        assert done.code == 2
        assert done.out.startswith("setwise/best: ok (choose, ")
        assert [line.split(":")[1].strip() for line in done.err.splitlines()] == ["bad.j2", "torn.j2", "absent.j2"]
        assert "qery" in done.err
        told = json.loads(llmrank("prompts", "lint", "bad.j2", "setwise/best", "--json").out)["templates"]
        assert [template["ok"] for template in told] == [False, True]
        assert "qery" in told[0]["problem"]

    def test_diff_shows_changed_lines(self, llmrank: Program, folder: Path) -> None:
        text = llmrank("prompts", "show", "listwise/rank").out
        (folder / "mine.j2").write_text(text.replace("Do not explain.", "Say nothing else."))
        lines = llmrank("prompts", "diff", "listwise/rank", "mine.j2").out.splitlines()
        assert lines[:2] == ["--- listwise/rank", "+++ mine.j2"]
        changed = [line for line in lines[2:] if line[0] in "+-"]
        assert [line[0] for line in changed] == ["-", "+"]
        told = json.loads(llmrank("prompts", "diff", "listwise/rank", "mine.j2", "--json").out)
        assert told == {"same": False, "diff": lines}


class TestDemo:
    def test_compares_three_methods(self, llmrank: Program, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        before = set(folder.iterdir())
        done = llmrank("demo")
        assert (done.code, done.err) == (0, "")
        assert all(len(line.rstrip()) <= 80 for line in done.out.splitlines())
        told = json.loads(llmrank("demo", "--json").out)
        assert set(folder.iterdir()) == before  # neither files nor a ledger
        rows = {row["run"]: row for row in told["runs"]}
        assert len(rows) == 6
        assert "pointwise, nano judge" in rows
        for name, row in rows.items():
            assert row["low"] <= row["nDCG@10"] <= row["high"]
            (line,) = [line for line in done.out.splitlines() if line.startswith(name)]
            assert f"{row['nDCG@10']:.3f}" in line
            assert row["calls"] is None or str(row["calls"]) in line
        first = rows.pop("first stage (BM25)")
        assert first["calls"] is None
        assert all(row["nDCG@10"] > first["nDCG@10"] + 0.2 for name, row in rows.items() if "simulated" in name)
        assert len({name.partition(",")[0] for name in rows}) == 3

    def test_keeps_the_runs(self, llmrank: Program, folder: Path) -> None:
        done = llmrank("demo", "--keep", "made/here")
        assert "made/here" in done.out
        for path in (folder / "made" / "here").glob("*.trec"):
            assert len(path.read_text().splitlines()) == 240
        assert len(list((folder / "made" / "here").iterdir())) == 5
        refused = llmrank("demo", "--keep", "queries.tsv")
        assert (refused.code, refused.error) == (2, "--keep queries.tsv: this is a file; name a folder")


def test_a_command_returns_its_code_to_a_caller() -> None:
    assert run(["methods", "--json"]) == 0
