"""Asking: what carries a method's questions to a model and brings back answers, in layers that each do one thing."""
