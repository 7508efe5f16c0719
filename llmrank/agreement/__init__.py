"""Agreement of files: labels, preferences and runs read, matched and measured."""

from llmrank.agreement.files import LabelFile, Policy, Scale, parse_scale, read_labels
from llmrank.agreement.labels import Agreement, JudgeAgreement, LabelSettings, agree_labels
from llmrank.agreement.preferences import agree_preferences

__all__ = [
    "Agreement",
    "JudgeAgreement",
    "LabelFile",
    "LabelSettings",
    "Policy",
    "Scale",
    "agree_labels",
    "agree_preferences",
    "parse_scale",
    "read_labels",
]
