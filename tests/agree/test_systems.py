"""Agreement of system rankings: figures, decisions and what holes in the judgments leave open."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from llmrank.agree.resampling import Resampling
from llmrank.agree.systems import bounds, condensed, decisions, judged, system_figures

FEW = Resampling(replicates=300)


def scores(systems: int = 8, topics: int = 25, noise: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = np.clip(0.4 + 0.03 * np.arange(systems)[:, None] + generator.normal(0, 0.15, (systems, topics)), 0, 1)
    return truth, truth + 0.1 + generator.normal(0, noise, truth.shape)


def test_a_perfect_judge_ranks_perfectly() -> None:
    truth, _ = scores()
    found = system_figures(truth, truth, FEW)
    for name in ("tau_b", "rho", "tau_ap", "rbo", "top10_tau_b", "decision_accuracy", "significant_kept"):
        assert found[name].value == pytest.approx(1)
    assert found["inflation"].value == 0
    assert found["significant_lost"].value == found["significant_flipped"].value == 0


def test_figures_against_plain_code() -> None:
    truth, said = scores(systems=12)
    found = system_figures(truth, said, FEW)
    means = truth.mean(1), said.mean(1)
    assert found["tau_b"].value == pytest.approx(stats.kendalltau(*means).statistic)
    best = np.argsort(-means[0])[:10]
    assert found["top10_tau_b"].value == pytest.approx(stats.kendalltau(means[0][best], means[1][best]).statistic)
    assert found["inflation"].value == pytest.approx(np.mean(said - truth))
    for figure in found.values():
        assert figure.low is None or figure.low <= figure.value <= figure.high
    assert {figure.n for name, figure in found.items() if "significant" not in name} == {12}


def test_the_order_of_topics_changes_nothing() -> None:
    truth, said = scores()
    shuffled = np.random.default_rng(3).permutation(truth.shape[1])
    first, second = system_figures(truth, said, FEW), system_figures(truth[:, shuffled], said[:, shuffled], FEW)
    for name, figure in first.items():
        other = second[name]
        assert (figure.value, figure.low, figure.high) == pytest.approx((other.value, other.low, other.high))


def test_decisions_are_those_of_the_paired_t_test() -> None:
    truth, said = scores(noise=0.3)
    said[[0, -1]] = said[[-1, 0]]  # the best and the worst system change places
    kept = lost = flipped = significant = 0
    for one in range(len(truth)):
        for two in range(one):
            tests = [stats.ttest_rel(side[one], side[two]) for side in (truth, said)]
            if tests[0].pvalue < 0.05:
                significant += 1
                same = np.sign(tests[0].statistic) == np.sign(tests[1].statistic)
                kept += tests[1].pvalue < 0.05 and same
                flipped += tests[1].pvalue < 0.05 and not same
                lost += tests[1].pvalue >= 0.05
    found = decisions(truth, said)
    assert kept > 0
    assert flipped > 0
    assert lost > 0
    assert {figure.n for figure in found.values()} == {significant}
    shares = [found[f"significant_{what}"].value for what in ("kept", "lost", "flipped")]
    assert shares == pytest.approx([kept / significant, lost / significant, flipped / significant])


def test_ties_are_told() -> None:
    truth, said = scores(systems=4)
    truth[1] = truth[0]
    found = system_figures(truth, said, FEW)
    assert "2 systems tie in truth and 0 in prediction" in str(found["tau_ap"].note)
    assert "2 systems tie" in str(found["rbo"].note)


@pytest.mark.parametrize("shape", [(0, 5), (1, 5), (2, 1), (3, 0), (3, 1)])
def test_degenerate_inputs_are_said_in_words(shape: tuple[int, int]) -> None:
    for truth in (np.zeros(shape), np.arange(math.prod(shape)).reshape(shape) / 7.0):
        for figure in system_figures(truth, truth, FEW).values():
            assert figure.value is not None or figure.note
            assert (figure.low is None) == (figure.high is None)


def test_systems_that_all_tie_have_no_order() -> None:
    flat = np.full((3, 6), 0.5)
    found = system_figures(flat, flat, FEW)
    assert found["tau_b"].value is None
    assert "all systems tie" in str(found["tau_b"].note)
    assert found["inflation"].value == 0


def test_holes() -> None:
    ranking = np.array([3.0, np.nan, 0.0, 1.0, np.nan])
    assert judged(ranking, 3) == pytest.approx(2 / 3)
    assert judged(ranking) == pytest.approx(3 / 5)
    assert condensed(ranking).tolist() == [3, 0, 1]
    discount = 1 / np.log2(np.arange(2, 7))
    found = bounds(ranking, discount, highest=3)
    assert found.low == pytest.approx(discount @ [3, 0, 0, 1, 0])
    assert found.high == pytest.approx(discount @ [3, 3, 0, 1, 3])
    assert math.isnan(float(judged(np.array([]))))
