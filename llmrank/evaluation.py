"""Runs measured against judgments: values per topic, means with intervals, and tests against a baseline.

The measures are those of `ir_measures`, named as people write them: `nDCG@10`, `AP(rel=2)@100`, `RR@10`, `Judged@10`.
What trec_eval computes is computed by trec_eval's own code.
"""

from __future__ import annotations

import ast
import difflib
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ir_measures
import numpy as np
from ir_measures.measures import Measure, registry
from ir_measures.measures.base import SumAgg
from ir_measures.providers import Evaluator
from ir_measures.providers.gdeval_provider import GdevalEvaluator

from llmrank.agree.results import Figure
from llmrank.agree.significance import REPLICATES, holm, mean, paired_t, randomization
from llmrank.data.run import ScoredDoc
from llmrank.errors import InputError

Run = Mapping[str, Sequence[ScoredDoc]]
"""A topic's documents best first, by topic, as `read_run` gives them."""
Qrels = Mapping[str, Mapping[str, int]]
"""A topic's grades by document, by topic, as `read_qrels` gives them."""

DEFAULT_MEASURES = ("nDCG@10", "AP", "RR@10", "R@100")
HIGHEST_GRADE = 1_000_000
GDEVAL_HIGHEST_GRADE = 4


@dataclass(frozen=True, slots=True)
class PairedTest:
    """A run against the baseline under one measure, over the topics that count for both."""

    difference: Figure
    """Mean of the topics' differences, run minus baseline, with its interval by Student's t."""
    p_t: float | None
    """Two-sided p of the paired t test; None where the differences are all alike or fewer than two."""
    p_randomization: float | None
    """Two-sided p of the paired randomisation test; None where there is no topic."""
    p_holm: float | None = None
    """`p_randomization` after Holm's correction over all runs and measures."""

    def json(self) -> dict[str, Any]:
        return {
            "difference": self.difference.json(),
            "p_t": self.p_t,
            "p_randomization": self.p_randomization,
            "p_holm": self.p_holm,
        }


@dataclass(frozen=True, slots=True)
class RunEvaluation:
    """What one run is worth."""

    measures: Mapping[str, Figure]
    """By measure the mean over topics (the sum, for measures that count) with its interval by Student's t."""
    per_query: Mapping[str, Mapping[str, float]]
    """By measure the value of each topic that counts."""
    missing: int
    """How many topics of the qrels the run lacks. They count 0, or not at all with `only_shared`."""
    ignored: int
    """How many topics of the run the qrels lack. They count for nothing."""
    tests: Mapping[str, PairedTest] | None = None
    """By measure the tests against the baseline; None for the baseline itself and where there is none."""

    def json(self, per_query: bool = False) -> dict[str, Any]:
        found: dict[str, Any] = {"measures": {name: figure.json() for name, figure in self.measures.items()}}
        if per_query:
            found["per_query"] = {name: dict(values) for name, values in self.per_query.items()}
        found |= {"missing": self.missing, "ignored": self.ignored}
        if self.tests is not None:
            found["tests"] = {name: test.json() for name, test in self.tests.items()}
        return found


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What some runs are worth under some measures."""

    runs: Mapping[str, RunEvaluation]
    """By name of the run, in the order given."""
    topics: int
    """Topics of the qrels."""
    baseline: str | None
    """Name of the run that the others are tested against."""
    only_shared: bool
    """Whether only topics count that the run has too; a test then goes over those that run and baseline have."""
    seed: int
    """Seed of the randomisation test."""

    def json(self, per_query: bool = False) -> dict[str, Any]:
        """The evaluation as JSON has it; the values of each topic only where `per_query` asks for them."""
        return {
            "runs": {name: run.json(per_query) for name, run in self.runs.items()},
            "topics": self.topics,
            "settings": {
                "baseline": self.baseline,
                "only_shared": self.only_shared,
                "seed": self.seed,
                "replicates": REPLICATES,
                "holm": "p_randomization, over runs x measures",
            },
        }


def evaluate(
    qrels: Qrels,
    runs: Mapping[str, Run],
    measures: Iterable[str | Measure] = DEFAULT_MEASURES,
    baseline: str | None = None,
    only_shared: bool = False,
    seed: int = 0,
) -> Evaluation:
    """Measure runs against qrels, and against one of them.

    measures : as people write them, or objects of `ir_measures`. One that is named twice counts once.
    baseline : name of the run that the others are tested against, under each measure: a paired t test and a paired
        randomisation test, the p of the latter corrected by Holm over all runs and measures.
    only_shared : means over the topics that both the run and the qrels have, as trec_eval does unless told
        otherwise, in place of all topics of the qrels with 0 for those that the run lacks.
    seed : of the randomisation test.
    """
    if baseline is not None and baseline not in runs:
        raise InputError(f"the baseline {baseline!r} is not among the runs: {', '.join(runs)}")
    parsed = parse_measures(measures)
    values = score(qrels, runs, parsed)
    counted = {name: [t for t in qrels if run.get(t) or not only_shared] for name, run in runs.items()}
    evaluations = {}
    for name, run in runs.items():
        per_query = {str(m): {t: values[name][str(m)][t] for t in counted[name]} for m in parsed}
        evaluations[name] = RunEvaluation(
            measures={str(m): _summary(m, per_query[str(m)].values()) for m in parsed},
            per_query=per_query,
            missing=sum(1 for topic in qrels if not run.get(topic)),
            ignored=sum(1 for topic in run if topic not in qrels),
        )
    if baseline is not None:
        evaluations = _tested(evaluations, baseline, seed)
    return Evaluation(evaluations, len(qrels), baseline, only_shared, seed)


def score(
    qrels: Qrels, runs: Mapping[str, Run], measures: Iterable[str | Measure]
) -> dict[str, dict[str, dict[str, float]]]:
    """Values by run, measure and topic, for every topic of the qrels; one that a run lacks has 0."""
    # Topics are numbered because one provider takes only numbers for their names; grades below 0 count as 0.
    number = {topic: str(place) for place, topic in enumerate(qrels, start=1)}
    grades = {number[topic]: _grades(topic, judged) for topic, judged in qrels.items()}
    # One evaluator a measure: asked for several at once, ir_measures mixes up those that differ in `gains` only.
    evaluators = {measure: _evaluator(measure, grades) for measure in parse_measures(measures)}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, run in runs.items():
        scores = {number[topic]: _scores(name, topic, run[topic]) for topic in qrels if run.get(topic)}
        found[name] = {}
        for measure, evaluator in evaluators.items():
            values = _values(measure, evaluator, scores)
            found[name][str(measure)] = {topic: values.get(number[topic], 0.0) for topic in qrels}
    return found


def parse_measures(measures: Iterable[str | Measure]) -> list[Measure]:
    """The measures, each once, in the order given."""
    return list(dict.fromkeys(parse_measure(str(measure)) for measure in measures))


def parse_measure(text: str) -> Measure:
    """One measure as people write it: `nDCG@10`, `AP(rel=2)@100`."""
    # ir_measures' own parser needs parts of `ast` that Python 3.14 no longer has.
    name, cutoff, parameters = _parts(text)
    if name not in registry:
        near = difflib.get_close_matches(name.casefold(), [known.casefold() for known in registry], n=1, cutoff=0.5)
        hint = next((f", did you mean {known}?" for known in registry if known.casefold() in near), "")
        raise InputError(f"there is no measure {name!r}{hint or ', see https://ir-measur.es for those there are'}")
    if cutoff is not None:
        parameters[registry[name].AT_PARAM] = cutoff
    checked = {key: _checked_parameter(text, registry[name], key, value) for key, value in parameters.items()}
    measure: Measure = registry[name](**checked)
    for parameter, info in measure.SUPPORTED_PARAMS.items():
        if info.required and parameter not in measure.params:
            example = f"{name}@10" if parameter == "cutoff" else f"{name}({parameter}=...)"
            raise InputError(f"the measure {text!r} needs a {parameter}, as in {example}")
    return measure


def _parts(text: str) -> tuple[str, Any, dict[str, Any]]:
    """Name, what stands after the @ (or None), and the named parameters."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            node: ast.expr = ast.parse(text.strip(), mode="eval").body
        cutoff: Any = None
        parameters: dict[str, Any] = {}
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            cutoff = ast.literal_eval(node.right)
            node = node.left
        if isinstance(node, ast.Call) and not node.args:
            parameters = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
            node = node.func
        if isinstance(node, ast.Name):
            return node.id, cutoff, parameters
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass
    raise InputError(f"{text!r} is not a measure: write it as nDCG@10, AP(rel=2)@100 or P(rel=2)@5")


def _whole(value: Any) -> bool:
    return type(value) is int and value >= 1


def _whole_gains(gains: dict[Any, Any]) -> bool:
    return all(type(number) is int and 0 <= number <= HIGHEST_GRADE for pair in gains.items() for number in pair)


# What the providers themselves leave unchecked: some of it gives wrong values, some of it ends the process.
LIMITS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "cutoff": (_whole, "a whole number from 1"),
    "rel": (_whole, "a grade from 1"),
    "recall": (lambda value: 0 <= value <= 1 and round(value, 2) == value, "between 0 and 1, in hundredths"),
    "beta": (lambda value: 0.001 <= value <= 1000, "between 0.001 and 1000"),
    "gains": (_whole_gains, f"whole numbers from 0 to {HIGHEST_GRADE:,} for whole grades"),
}


def _checked_parameter(text: str, measure: Measure, parameter: str, value: Any) -> Any:
    info: Any = measure.SUPPORTED_PARAMS.get(parameter)
    if info is None:
        takes = ", ".join(measure.SUPPORTED_PARAMS) or "none"
        raise InputError(f"the measure {text!r} has no parameter {parameter!r}; it takes {takes}")
    if info.dtype is float and type(value) is int:
        value = float(value)
    described = f"one of {info.choices}" if isinstance(info.choices, list) else f"of type {info.dtype.__name__}"
    holds, wanted = LIMITS.get(parameter, (lambda _: True, described))
    if not info.validate(value) or not holds(value):
        raise InputError(f"the measure {text!r} has {parameter} {value!r}, which must be {wanted}")
    return value


def _grades(topic: str, judged: Mapping[str, int]) -> dict[str, int]:
    for doc_id, grade in judged.items():
        if grade > HIGHEST_GRADE:
            raise InputError(
                f"topic {topic}, document {doc_id}: {grade} is too large for a grade; see the qrels' last column"
            )
    return {doc_id: max(0, int(grade)) for doc_id, grade in judged.items()}


def _scores(name: str, topic: str, documents: Sequence[ScoredDoc]) -> dict[str, float]:
    """Scores that fall by one from place to place: providers break ties of the run's own scores in different ways."""
    scores = {document.doc_id: float(len(documents) - place) for place, document in enumerate(documents)}
    if len(scores) < len(documents):
        raise InputError(f"run {name}, topic {topic}: a document is listed twice")
    return scores


def _evaluator(measure: Measure, grades: dict[str, dict[str, int]]) -> Evaluator:
    providers = [p for p in ir_measures.DefaultPipeline.providers if p.supports(measure)]
    if not any(provider.is_available() for provider in providers):
        cures = [cure for provider in providers if (cure := provider.install_instructions())]
        raise InputError(f"{measure} cannot be computed here" + (f": {' or '.join(cures)}" if cures else ""))
    try:
        evaluator: Evaluator = ir_measures.evaluator([measure], grades)
    except Exception as problem:
        raise _failure(measure, problem) from problem
    highest = max((grade for judged in grades.values() for grade in judged.values()), default=0)
    if isinstance(evaluator, GdevalEvaluator) and highest > GDEVAL_HIGHEST_GRADE:
        raise InputError(f"{measure} takes grades to {GDEVAL_HIGHEST_GRADE} only, and the qrels have {highest}")
    return evaluator


def _values(measure: Measure, evaluator: Evaluator, scores: dict[str, dict[str, float]]) -> dict[str, float]:
    try:
        values = {metric.query_id: float(metric.value) for metric in evaluator.iter_calc(scores)}
    except Exception as problem:
        raise _failure(measure, problem) from problem
    if not all(map(math.isfinite, values.values())):
        raise InputError(f"{measure} cannot be computed for these judgments: a topic's value is not finite")
    return values


def _failure(measure: Measure, problem: Exception) -> InputError:
    # Providers raise whatever they like, over as many lines as they like.
    return InputError(f"{measure} cannot be computed: {' '.join(str(problem).split()) or type(problem).__name__}")


def _summary(measure: Measure, values: Iterable[float]) -> Figure:
    sample = np.array(list(values), dtype=np.float64)
    if isinstance(measure.aggregator(), SumAgg) and len(sample):
        return Figure(float(sample.sum()), None, None, len(sample), "a sum over topics, which has no interval")
    return mean(sample)


def _tested(runs: Mapping[str, RunEvaluation], baseline: str, seed: int) -> dict[str, RunEvaluation]:
    """The same evaluations with the tests against the baseline, corrected over all runs and measures."""
    others = {name: run for name, run in runs.items() if name != baseline}
    tests = {
        (name, measure): _paired_test(values, runs[baseline].per_query[measure], seed)
        for name, run in others.items()
        for measure, values in run.per_query.items()
    }
    p_holm = dict(zip(tests, holm([test.p_randomization for test in tests.values()]), strict=True))
    tested = dict(runs)
    for name, run in others.items():
        tested[name] = replace(run, tests={m: replace(tests[name, m], p_holm=p_holm[name, m]) for m in run.measures})
    return tested


def _paired_test(values: Mapping[str, float], others: Mapping[str, float], seed: int) -> PairedTest:
    differences = [value - others[topic] for topic, value in values.items() if topic in others]
    difference, p_t = mean(differences), paired_t(differences)
    if p_t is None:
        difference = replace(difference, note=f"{difference.note}, and there is no t test")
    return PairedTest(difference, p_t, randomization(differences, seed=seed))
