"""Robustness: what becomes of a model's answers when texts, embeddings or weights are perturbed."""
