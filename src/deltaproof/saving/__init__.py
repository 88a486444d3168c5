"""Tuned models on disk, in our format and in those of PEFT and transformers."""
