"""What the fork server imports once, so that a run starts in a moment."""

import contextlib
import gc
import importlib

MODULES = (
    "accelerate",
    "peft",
    "pyarrow.compute",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.bert.modeling_bert",  # many small encoders are of this family, the demo's model among them
    "torch.utils.flop_counter",
    "deltaproof.experiments.inspect",
    "deltaproof.experiments.lane_run",
    "deltaproof.experiments.probe",
    "deltaproof.experiments.run",
)


def _import() -> None:
    for name in MODULES:
        importlib.import_module(name)
    with contextlib.suppress(ImportError, AttributeError):  # versions of transformers that have no such table
        mapping = importlib.import_module("transformers.conversion_mapping")
        mapping.get_checkpoint_conversion_mapping(
            "bert"
        )  # made at the first call, whatever the name: 0.2 s of each run


gc.disable()  # next to nothing of what is imported is garbage: searching for it takes a tenth of the time
_import()
gc.enable()
gc.collect()
gc.freeze()  # what was imported is never garbage: a run's collector need not walk through it, nor its memory be copied
