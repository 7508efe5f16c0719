"""Label agreement, system-ranking agreement, significance and debiased estimates: arrays in, results out."""

from llmrank.agree.calibration import brier_score, expected_calibration_error, reliability_curve, soft_kappa
from llmrank.agree.confusion import Confusion
from llmrank.agree.label_agreement import (
    binarized_figures,
    compare_judges,
    counted,
    hit_rate_figures,
    kappa,
    label_figures,
    polarity,
)
from llmrank.agree.ppi import leaderboard, ppi_mean, ppi_mean_of_pairs
from llmrank.agree.preferences import agree_on_preferences
from llmrank.agree.rankings import rbo, spearman, tau_ap, tau_b
from llmrank.agree.raters import fleiss_kappa, human_ceiling, krippendorff_alpha
from llmrank.agree.resampling import Resampling
from llmrank.agree.results import Figure
from llmrank.agree.systems import bounds, condensed, decisions, judged, system_figures
from llmrank.agree.uncertain_labels import expected_ndcg, largest_disagreement, next_pairs

__all__ = [
    "Confusion",
    "Figure",
    "Resampling",
    "agree_on_preferences",
    "binarized_figures",
    "bounds",
    "brier_score",
    "compare_judges",
    "condensed",
    "counted",
    "decisions",
    "expected_calibration_error",
    "expected_ndcg",
    "fleiss_kappa",
    "hit_rate_figures",
    "human_ceiling",
    "judged",
    "kappa",
    "krippendorff_alpha",
    "label_figures",
    "largest_disagreement",
    "leaderboard",
    "next_pairs",
    "polarity",
    "ppi_mean",
    "ppi_mean_of_pairs",
    "rbo",
    "reliability_curve",
    "soft_kappa",
    "spearman",
    "system_figures",
    "tau_ap",
    "tau_b",
]
