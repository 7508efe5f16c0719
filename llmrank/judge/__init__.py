"""Judging: (query, document) pairs are labelled, and every label carries the words that made it."""
