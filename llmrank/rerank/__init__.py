"""Reranking: the strategies, one module per family, and `Reranker`, which puts one to work."""
