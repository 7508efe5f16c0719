"""The criteria of relevance that have a name, in words: what rerankers and judges that grade several apart share."""

from __future__ import annotations

CRITERIA = {
    "exactness": "Exactness: the passage says the very thing that is searched for, and nothing has to be guessed.",
    "coverage": "Coverage: the passage keeps to what is searched for, and leaves little of it out.",
    "topicality": "Topicality: passage and query, each as a whole, have one subject, not just some words in common.",
    "contextual-fit": "Contextual fit: the passage adds the background without which an answer makes no sense.",
}
"""By name (four-criteria prompts, 2507.09488); the words are ours."""
