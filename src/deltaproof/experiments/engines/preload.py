"""What the fork server imports once, so that a run starts in a moment."""

import accelerate
import peft
import transformers.models.auto.modeling_auto

import deltaproof.experiments.run

__all__ = ["accelerate", "deltaproof", "peft", "transformers"]
