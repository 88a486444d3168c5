"""In how many bits an export is stored, and how far from what was tuned that may bring it."""

from dataclasses import dataclass

from deltaproof.errors import ConfigError, nearest
from deltaproof.shipping.exports import DTYPES

INT8_ROUNDING = 0.4
"""Of the largest logit, for matrices in 8 bits, a scale for each row, with activations rounded as the graph runs.
Measured on a BERT of six layers tuned on SST-2 and on TREC: 0.25 and 0.17, at 0.0 and -0.5 points of accuracy on 600
validation rows. (One scale for a whole matrix: 0.35 and 0.25, at -1.7 and -2.8 points.)"""
_STORED = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}


@dataclass(frozen=True)
class Storage:
    """How an export is stored, and what is allowed for it."""

    dtype: str
    quantize: str | None
    relative: float | None
    """How far a logit may be off, in units of the largest; None: what rounding explains."""
    score_tolerance: float | None

    @property
    def name(self) -> str:
        return self.quantize or self.dtype

    @property
    def rounds_to(self) -> str:
        """The type of the merged weights, as safetensors calls it."""
        return _STORED[self.dtype]


def storage_for(
    to: str, dtype: str, quantize: str | None, tolerance: float | None, score_tolerance: float | None
) -> Storage:  # fmt: skip
    """Check what was asked for.

    Raises:
        ConfigError: it does not go with the form of the export.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"`dtype` must be one of {', '.join(DTYPES)}, got `{dtype}`; {nearest(dtype, DTYPES)}")
    if dtype != "fp32" and to != "merged":
        raise ConfigError(
            f"`dtype` is for a merged model, got `{dtype}` for `{to}`; use `--to merged`, or leave it out"
        )
    if quantize not in (None, "int8"):
        raise ConfigError(f"`quantize` must be `int8`, got `{quantize}`; leave it out for full precision")
    if quantize and to != "onnx":
        raise ConfigError(f"`quantize` is for an ONNX graph, got `{quantize}` for `{to}`; use `--to onnx`")
    for name, value in (("tolerance", tolerance), ("score_tolerance", score_tolerance)):
        if value is not None and not value >= 0:
            raise ConfigError(f"`{name} >= 0` must hold, got {value}; leave it out for the default")
    relative = INT8_ROUNDING if quantize and tolerance is None else tolerance
    return Storage(dtype, quantize, relative, score_tolerance)
