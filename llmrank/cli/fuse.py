"""`llmrank fuse`: several runs into one."""

from __future__ import annotations

from typing import Annotated

import typer


def fuse(
    runs: Annotated[list[str], typer.Argument(help="Runs, TREC six columns.", metavar="RUN...")],
    output: Annotated[str, typer.Option(help="The fused run; - for standard output.", metavar="OUT.trec")],
    method: Annotated[str, typer.Option(help="rrf, combsum, combmnz or zscore.")] = "rrf",
    weight: Annotated[list[float], typer.Option(help="Weight of a run; once for each, in order.")] = [],  # noqa: B006
    depth: Annotated[int, typer.Option(min=1, help="Documents of a topic that are written.")] = 1000,
) -> None:
    """Fuse runs of the same topics into one.

    Example: llmrank fuse bm25.trec dense.trec --method rrf --output fused.trec
    """
    from llmrank import fusion
    from llmrank.data.files import writing
    from llmrank.data.run import format_ranking, read_run
    from llmrank.jobs.outputs import Outputs

    Outputs(output).check(runs)
    read = [read_run(path) for path in runs]
    with writing(output) as file:
        for topic, doc_ids, scores in fusion.fuse(read, method, weight or None):
            file.write(format_ranking(topic, doc_ids[:depth], scores[:depth], f"llmrank-{method}"))
