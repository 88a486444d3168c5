"""DiffFit: the biases, the norms, and a gain on what each block adds."""

from collections.abc import Iterator

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.sites import Site
from deltaproof.methods.base import Method, method, parameter_names
from deltaproof.methods.bitfit import bias_names
from deltaproof.methods.edits import Edit, Unfreeze
from deltaproof.methods.ia3 import OutputGain


@method("difffit")
class DiffFit(Method):
    """BitFit and LN-Tune together, with a gain on the output of attention and of the feed-forward block."""

    idea = "Train biases and norms, and scale what each block adds to the residual stream."
    equation = "x' = x + g_a * attention(x), x'' = x' + g_f * ffn(x'), with all biases and norms trained"
    paper = "Xie et al., 2023, arXiv:2304.06648"
    trains = "d_out per layer that has a bias, 2 d per LayerNorm, 2 d per layer"
    advice = "A little more than BitFit, and it still merges into the base, at no cost at inference."
    learning_rate = 1e-3  # as for `bitfit` and `ln_tune`; the study of arXiv:2409.16434 tries 1e-3 and 1e-2
    start = "biases and norms as they are, gains 1, which is the base"
    where = "every bias and norm of the base; gains on the outputs of `attention_out` and `ffn_out`"
    differences = (
        "a gain stands on the block's last map, which is the same unless a norm follows it before the sum (Gemma 2 and "
        "3); new biases are added nowhere"
    )

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        norms = parameter_names(backbone, backbone.sites(["norm"]))
        yield None, Unfreeze(dict.fromkeys([*bias_names(backbone), *norms]))
        for site in backbone.sites(["attention_out", "ffn_out"]):
            yield site, OutputGain(site)
