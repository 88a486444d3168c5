"""Pretrained models as sequence classifiers, with their parts found by role.

>>> from deltaproof.backbones import tiny_backbone
>>> [site.name for site in tiny_backbone("gpt2").sites(["query"])]
['transformer.h.0.attn.c_attn[query]', 'transformer.h.1.attn.c_attn[query]']
"""

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.families import FAMILIES, Family
from deltaproof.backbones.load import as_backbone, backbone_of, load_backbone
from deltaproof.backbones.roles import ATTENTION, FFN, QKV, ROLES
from deltaproof.backbones.sites import Site, bias_of, weight_of
from deltaproof.backbones.tiny import TINY_FAMILIES, save_tiny, tiny_backbone, tiny_language_model

__all__ = [
    "ATTENTION",
    "FAMILIES",
    "FFN",
    "QKV",
    "ROLES",
    "TINY_FAMILIES",
    "Backbone",
    "Family",
    "Site",
    "as_backbone",
    "backbone_of",
    "bias_of",
    "load_backbone",
    "save_tiny",
    "tiny_backbone",
    "tiny_language_model",
    "weight_of",
]
