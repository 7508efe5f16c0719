"""What `rerank` and `plan rerank` share: the flags of a reranking job, and putting it together from them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field

from llmrank.cli.flags import key_values
from llmrank.cli.given import BACKEND, checked, flag_of, one_stdin
from llmrank.errors import InputError

if TYPE_CHECKING:
    from llmrank.data.inputs import RerankInputs
    from llmrank.rerank.reranker import Reranker
    from llmrank.templates import Template


class RerankFlags(BaseModel):
    """The flags that say what is reranked, and how."""

    queries: Annotated[str | None, flag_of("Queries: TSV, JSONL or TREC topics.")] = None
    corpus: Annotated[str | None, flag_of("Documents: TSV or JSONL.")] = None
    run: Annotated[str | None, flag_of("First-stage run, TREC six columns.")] = None
    requests: Annotated[str | None, flag_of("JSONL of queries with their candidates, in place of the three above.")] = (
        None
    )
    backend: Annotated[str | None, flag_of(BACKEND, "SPEC")] = None
    method: Annotated[str, Field(description="`llmrank methods` lists them.")] = "sliding-window"
    template: Annotated[str | None, Field(description="Name or path; else the method's own.")] = None
    template_variable: Annotated[list[str], flag_of("A variable of the template's own.", "KEY=VALUE")] = []
    option: Annotated[list[str], flag_of("Option of the method.", "KEY=VALUE")] = []
    constrain: Annotated[
        bool, Field(description="Hold replies to what was asked for, where the backend can: nothing fails to parse.")
    ] = False
    depth: Annotated[int, Field(ge=0, description="How many of a query's first documents are reranked.")] = 100


def rerank_flags(given: dict[str, Any]) -> RerankFlags:
    """The flags as given. Raises InputError where they do not go together."""
    flags = checked(RerankFlags, given)
    triple = {"--queries": flags.queries, "--corpus": flags.corpus, "--run": flags.run}
    if flags.requests is not None:
        if named := [flag for flag, value in triple.items() if value is not None]:
            raise InputError(f"--requests stands in place of --queries, --corpus and --run; leave out {named[0]}")
    elif missing := [flag for flag, value in triple.items() if value is None]:
        raise InputError(f"{missing[0]} is missing: name --queries, --corpus and --run, or --requests")
    one_stdin(given)
    return checked(RerankFlags, given, ("backend",))


def make_reranker(flags: RerankFlags, settings: dict[str, Any], *, keep_answers: bool = False) -> Reranker:
    from llmrank.rerank.reranker import Reranker
    from llmrank.settings import Settings

    return Reranker(
        flags.method,
        backend=flags.backend or "",
        template=_template(flags),
        options=key_values(flags.option, "--option"),
        depth=flags.depth,
        keep_answers=keep_answers,
        constrain=flags.constrain,
        settings=Settings.of(**settings),
    )


def variables(texts: list[str], flag: str = "--template-variable") -> dict[str, str]:
    """KEY=VALUE texts as a template's variables; unlike an option's, a value keeps its spaces and line breaks."""
    pairs = [(text, *text.partition("=")) for text in texts]
    if bare := [text for text, key, sign, _ in pairs if not (key and sign)]:
        raise InputError(f"{flag} {bare[0]}: write it as KEY=VALUE")
    return {key.strip().replace("-", "_"): value for _, key, _, value in pairs}


def _template(flags: RerankFlags) -> Template | str | None:
    """The template that was named, or the method's own, with its variables as given."""
    if not flags.template_variable:
        return flags.template
    from llmrank.rerank.methods import find
    from llmrank.templates import load

    own = find(flags.method).given(key_values(flags.option, "--option")).template
    return load(flags.template or own, variables(flags.template_variable))


def open_inputs(flags: RerankFlags) -> AbstractContextManager[RerankInputs]:
    """The inputs, read and checked to their end."""
    from llmrank.data.inputs import RerankInputs

    if flags.requests is not None:
        return RerankInputs.from_requests(flags.requests, flags.depth)
    assert flags.queries is not None
    assert flags.corpus is not None
    assert flags.run is not None
    return RerankInputs.from_files(flags.queries, flags.corpus, flags.run, flags.depth)


def check_sizes(reranker: Reranker, inputs: RerankInputs) -> None:
    """Raises InputError for a query that the method cannot rank, before anything is asked."""
    try:
        for size in inputs.sizes:
            reranker.check_size("", size)
    except InputError:
        for candidates in inputs:
            reranker.check_size(candidates.query.id, len(candidates.documents))
