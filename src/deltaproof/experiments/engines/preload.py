"""What the fork server imports once, so that a run starts in a moment."""

import gc
import importlib

MODULES = (
    "accelerate",
    "peft",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "torch.utils.flop_counter",
    "deltaproof.experiments.inspect",
    "deltaproof.experiments.lane_run",
    "deltaproof.experiments.probe",
    "deltaproof.experiments.run",
)

for _name in MODULES:
    importlib.import_module(_name)
gc.collect()
gc.freeze()  # what was imported is never garbage: a run's collector need not walk through it, nor its memory be copied
