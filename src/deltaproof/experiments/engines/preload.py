"""What the fork server imports once, so that a run starts in a moment."""

import importlib

MODULES = (
    "accelerate",
    "peft",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "torch.utils.flop_counter",
    "deltaproof.experiments.inspect",
    "deltaproof.experiments.probe",
    "deltaproof.experiments.run",
)

for _name in MODULES:
    importlib.import_module(_name)
