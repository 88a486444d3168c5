"""Deep prompts are tokens that really stand in front of each layer's input and are cut off behind it."""

import pytest
import torch

from deltaproof.backbones import tiny_backbone
from deltaproof.errors import ConfigError
from deltaproof.methods import method_from
from deltaproof.methods.deep_prompt import norms_before
from deltaproof.methods.tuned import attach
from deltaproof.testing import Bench

LENGTH = 3


def concatenated(backbone, prompts, batch):
    """Run the layers one by one on [P_i, x], as the paper writes it, and put what is left of each into the next."""
    model = backbone.model
    base = model.base_model
    n_rows, n_tokens = batch["input_ids"].shape
    positions = torch.arange(n_tokens)[None]
    if backbone.family == "bert":
        h = base.embeddings(batch["input_ids"], token_type_ids=batch["token_type_ids"])
        layers, options, seen = base.encoder.layer, {}, torch.ones(n_tokens, n_tokens)
    elif backbone.family == "gpt2":
        h = base.wte(batch["input_ids"]) + base.wpe(positions)
        layers, options, seen = base.h, {}, torch.ones(n_tokens, n_tokens).tril()
    else:
        h = base.embed_tokens(batch["input_ids"])
        cos, sin = base.rotary_emb(h, positions)
        still = torch.ones(1, LENGTH, cos.shape[-1]), torch.zeros(1, LENGTH, sin.shape[-1])  # no position: no turn
        options = {"position_embeddings": (torch.cat([still[0], cos], 1), torch.cat([still[1], sin], 1))}
        layers, seen = base.layers, torch.ones(n_tokens, n_tokens).tril()
    seen = seen * batch["attention_mask"][:, None, :]  # who sees whom among the tokens
    seen = torch.nn.functional.pad(seen, (LENGTH, 0, LENGTH, 0), value=1)[:, None].bool()  # and all see the prompts
    for layer, prompt in zip(layers, prompts, strict=True):
        out = layer(torch.cat([prompt.expand(n_rows, -1, -1), h], 1), attention_mask=seen, **options)
        h = (out[0] if isinstance(out, tuple) else out)[:, LENGTH:]
    if backbone.family == "bert":
        return model.classifier(base.pooler(h))
    last = batch["attention_mask"].sum(1) - 1
    return model.score((base.ln_f if backbone.family == "gpt2" else base.norm)(h))[torch.arange(n_rows), last]


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_the_answers_are_those_of_tokens_in_front_of_every_layer(family):
    tuned = attach(tiny_backbone(family), method_from(f"deep_prompt(length={LENGTH})")).eval()
    batch = Bench().batch(tuned.backbone)
    prompts = [edit.prompt for edit in tuned.edits]
    with torch.no_grad():
        for prompt in prompts:
            prompt.mul_(8)  # far from the start, where a norm in front would show
        got = tuned(**batch).logits
        tuned.detach()
        wanted = concatenated(tuned.backbone, prompts, batch)
        plain = tuned.backbone.model(**batch).logits
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert (got - plain).abs().max() > 1e-2


def test_each_layer_of_width_d_trains_length_times_d_numbers():
    """The paper's count: for ViT-B (d 768, 12 layers) 9216 per prompt; here d 32, two layers, and the head."""
    for family, head in (("bert", 2 * 32 + 2), ("llama", 2 * 32)):
        assert attach(tiny_backbone(family), method_from("deep_prompt(length=7)")).n_trainable == 2 * 7 * 32 + head


def test_the_norm_in_front_of_attention_is_found_whatever_its_name():
    wanted = {
        "bert": [None, None],
        "albert": [None],
        "modernbert": [None, "model.layers.1.attn_norm"],
        "gpt2": ["transformer.h.0.ln_1", "transformer.h.1.ln_1"],
        "opt": [f"model.decoder.layers.{layer}.self_attn_layer_norm" for layer in (0, 1)],
        "gemma2": [f"model.layers.{layer}.input_layernorm" for layer in (0, 1)],
    }
    for family, paths in wanted.items():
        backbone = tiny_backbone(family)
        found = norms_before(backbone, backbone.sites(["attention"]))
        names = {module: path for path, module in backbone.model.named_modules()}
        assert [names.get(norm) for norm in found.values()] == paths
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in backbone.model.modules())


def test_models_that_norm_their_keys_are_refused():
    with pytest.raises(ConfigError, match=r"pass norms of their own, such as `.*k_norm`; choose `prefix`"):
        attach(tiny_backbone("qwen3"), method_from("deep_prompt"))
