"""`llmrank topics`: queries written for documents of a corpus, kept where they find their document again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field

from llmrank.cli.ending import telling_how_to_go_on
from llmrank.cli.flags import flags, split
from llmrank.cli.given import BACKEND, AsJson, Manifest, Quiet, checked, flag_of, one_stdin, out_of, read_by
from llmrank.cli.progress import Progress
from llmrank.cli.talks import conclude, counting
from llmrank.errors import InputError
from llmrank.settings import Settings

if TYPE_CHECKING:
    from llmrank.data.examples import TrainingQuery
    from llmrank.data.files import Source
    from llmrank.judge.topicjob import RoundTrip, TopicEnd


class TopicsFlags(BaseModel):
    """The flags that say what queries are written for, how, and what they must pass."""

    corpus: Annotated[str | None, flag_of("Documents: TSV or JSONL.")] = None
    backend: Annotated[str | None, flag_of(BACKEND, "SPEC")] = None
    template: Annotated[str, Field(description="Template that writes a query: a name or a path.")] = "topics/query"
    documents: Annotated[int, Field(ge=1, description="Documents to write for, drawn by --seed.")] = 100
    each: Annotated[int, Field(ge=1, description="Queries for each of them.")] = 1
    example_queries: Annotated[
        str | None, flag_of("Judged queries to show as examples, with --example-qrels; else --examples.")
    ] = None
    example_qrels: Annotated[str | None, flag_of("Their judgments; the documents come from the corpus.")] = None
    top: Annotated[
        int, Field(ge=0, description="Keep a query whose document BM25 ranks so high in the corpus; 0: any.")
    ] = 20
    run: Annotated[
        str | None,
        flag_of("A run over the written queries; its rank must be as high too. Make it from an earlier --output."),
    ] = None
    check: Annotated[
        str | None, flag_of("Template that grades: the source must come out on top of the best by BM25.", "TEMPLATE")
    ] = None
    check_backend: Annotated[str | None, flag_of("The model that grades; else --backend.", "SPEC")] = None
    check_depth: Annotated[int, Field(ge=1, description="How many of the best by BM25 are graded.")] = 10
    check_top: Annotated[int, Field(ge=0, description="How high the source must stand among them; 0: any.")] = 1
    negatives: Annotated[int, Field(ge=1, description="Negatives for each query in --triples.")] = 1
    negative_depth: Annotated[int, Field(ge=1, description="They are drawn from so many of the best by BM25.")] = 100


@flags(TopicsFlags, Settings)
def topics(
    *,
    output: Annotated[str, out_of("The queries that are kept: JSONL by its name, else TSV.", "OUT.tsv")],
    qrels: Annotated[str | None, out_of("Grade 1 for each query's source document.", "OUT.qrels")] = None,
    provenance: Annotated[
        str | None, out_of("Every query that was written: source, reply, ranks, kept or why not.", "OUT.jsonl")
    ] = None,
    triples: Annotated[
        str | None, out_of("Query, positive, negative for training: texts and scores as JSONL, else ids.", "OUT.jsonl")
    ] = None,
    manifest: Manifest = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    **given: Any,
) -> int:
    """Write synthetic queries for documents, and keep those that find their own document again.

    The documents are a seeded sample of the corpus. A query is kept where BM25 over the whole corpus, and where given
    a run and a grading model, rank its document high enough. The qrels hold the source documents alone, so what else
    is relevant is unjudged; ids begin with syn-, and --provenance tells where each query comes from. Negatives in the
    triples are near by BM25, and where a model graded, graded below the source.

    Exit codes: 0 done; 2 bad usage or bad input; 3 too many questions failed; 4 a budget ended the job; 5 the backend
    refused; 130 interrupted. After 5 and 130 what is done is in OUT.partial, and the same command goes on from there.

    Example: llmrank topics --corpus passages.jsonl --documents 500 --examples examples.jsonl
    --backend openai:gpt-4o-mini --output topics.tsv --qrels topics.qrels --provenance topics.jsonl
    """
    from llmrank.data.files import spooled
    from llmrank.jobs.outputs import Outputs
    from llmrank.judge.talkjob import describe
    from llmrank.judge.topicjob import corpus_of, documents_of, run_topics
    from llmrank.judge.topics import Checker, Writer

    ours, settings = split(given, TopicsFlags, Settings)
    job = checked(TopicsFlags, ours, ("corpus", "backend"))
    assert job.corpus is not None
    assert job.backend is not None
    one_stdin(given)
    _check(job, settings)
    outputs = Outputs(output, manifest=manifest, qrels=qrels, provenance=provenance, triples=triples)
    files = outputs.check(read_by(given), as_json=as_json)
    with spooled(job.corpus) as source:
        training, name = _training(job, settings, source)
        writer = Writer(
            backend=job.backend,
            template=job.template,
            each=job.each,
            training=training,
            training_name=name,
            **settings,
        )
        checker = None
        if job.check is not None:
            checker = Checker(writer, template=job.check, backend=job.check_backend)
        trip = _trip(job)
        documents, short = documents_of(corpus_of(source), source, job.documents, writer.settings.seed)
        described = describe(writer, job.model_dump(), _inputs(job, settings))
        if checker is not None:
            described["parts"]["check"] = describe(checker, {}, ())["parts"][""]
        written = len(documents) * job.each
        questions = written * (1 + (job.check_depth if checker is not None else 0))
        progress = Progress(len(documents), questions, quiet, "documents")
        with telling_how_to_go_on(files, progress, writer.settings):
            end = run_topics(
                writer,
                checker,
                documents,
                source,
                trip,
                files,
                manifest=described,
                short=short,
                on_progress=counting(progress),
            )
    if as_json:
        print(json.dumps({**end.json(), "output": output}))
    return conclude(
        end,
        writer.settings.max_failure_rate,
        output,
        f"{end.topics['failed']} queries in it are missing",
        f"{end.totals.sums['unasked']} questions were not asked",
        _summary(end),
        quiet,
    )


def _check(job: TopicsFlags, settings: dict[str, Any]) -> None:
    pair = {"--example-queries": job.example_queries, "--example-qrels": job.example_qrels}
    if missing := [flag for flag, path in pair.items() if path is None]:
        if len(missing) == 1:
            raise InputError(f"{missing[0]} is missing: examples from judgments need queries and qrels")
    elif "examples" in settings:
        raise InputError("--examples and --example-queries both bring examples; leave one out")
    if job.check is None and job.check_backend is not None:
        raise InputError(
            "--check-backend grades nothing without a template: add --check, for example relevance/umbrela"
        )


def _training(job: TopicsFlags, settings: dict[str, Any], corpus: Source) -> tuple[Sequence[TrainingQuery], str]:
    """The worked examples, and the file that they come from."""
    from llmrank.data.examples import read_examples
    from llmrank.data.qrels import read_qrels
    from llmrank.data.queries import read_queries
    from llmrank.judge.topicjob import corpus_of
    from llmrank.judge.topics import examples_of

    if job.example_queries is not None and job.example_qrels is not None:
        found = examples_of(read_queries(job.example_queries), read_qrels(job.example_qrels), corpus_of(corpus))
        if not found:
            raise InputError(
                f"{job.example_qrels}: no query of {job.example_queries} has a relevant document in {corpus}"
            )
        return found, job.example_qrels
    path = settings.get("examples")
    return (read_examples(path), path) if path is not None else ((), "")


def _trip(job: TopicsFlags) -> RoundTrip:
    from llmrank.data.run import read_run
    from llmrank.judge.topicjob import RoundTrip

    run = None
    if job.run is not None:
        run = {query_id: [hit.doc_id for hit in hits] for query_id, hits in read_run(job.run).items()}
    return RoundTrip(job.top, run, job.check_depth, job.check_top, job.negatives, job.negative_depth)


def _inputs(job: TopicsFlags, settings: dict[str, Any]) -> list[str | None]:
    return [job.corpus, job.run, job.example_queries, job.example_qrels, settings.get("examples")]


def _summary(end: TopicEnd) -> str:
    dropped = ", ".join(f"{why} {count}" for why, count in end.topics.most_common() if why != "kept")
    short = f" ({end.short} of the corpus are too short)" if end.short else ""
    return f"{end.documents} documents{short}: {end.topics.total()} queries written, {end.topics['kept']} kept" + (
        f", others dropped: {dropped}" if dropped else ""
    )
