"""A model wrapped by `peft`, as one edit of the whole model."""

import contextlib
import io
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from deltaproof.backbones.quiet import quiet
from deltaproof.errors import ConfigError
from deltaproof.methods.edits import ModelEdit
from deltaproof.methods.peft_kinds import UNMERGEABLE

_DRAWS_IN_THE_FORWARD_PASS = "generator_seed"
"""PVeRA's noise: left to torch's own generator, which checkpoints keep and recomputed layers set back."""
_REFUSALS = (ValueError, TypeError, AttributeError, NotImplementedError, KeyError, RuntimeError, AssertionError)


class PeftEdit(ModelEdit):
    """The model wrapped by `peft.get_peft_model`. The head is one of peft's `modules_to_save`, where it has those."""

    def __init__(self, label: str, config: Any, given: Collection[str] = ()) -> None:
        """`given` names the fields that the user set: a seed among them is left alone."""
        super().__init__()
        self.label = label
        self.config = config
        seeds = [name for name in vars(config) if name.endswith(("seed", "prng_key"))]
        self.seed_fields = [name for name in seeds if name not in (*given, _DRAWS_IN_THE_FORWARD_PASS)]
        self.kind = str(config.peft_type.value).lower()
        # prefixes come as a cache, which transformers takes away from layers that are computed again
        self.recomputable = self.kind != "prefix_tuning"
        self.acts_inside = not config.is_prompt_learning
        self._seed = 0
        self._wrapped: list[Any] = []  # in a list, so that the edit does not own the model's parameters

    @property
    def tuner(self) -> Any:
        """peft's own wrapper, inside of its outer one."""
        return self._wrapped[0].base_model

    @property
    def mergeable(self) -> bool:  # type: ignore[override]
        """Whether peft can fold the change into the weights; a bias needs a layer that has one."""
        if self.kind == "beft":
            layers = [module for module in self._wrapped[0].modules() if hasattr(module, "beft_bias")]
            return all(getattr(module.get_base_layer(), "bias", None) is not None for module in layers)
        return not self.config.is_prompt_learning and self.kind not in UNMERGEABLE

    def start(self, weight: Tensor | None, generator: torch.Generator) -> None:
        self._seed = int(torch.randint(2**31, (1,), generator=generator))
        for name in self.seed_fields:  # what peft draws from a generator of its own, such as VeRA's projections
            setattr(self.config, name, self._seed)

    def wrap(self, model: nn.Module, head: tuple[str, ...]) -> nn.Module:
        """The wrapped model, tried out on one token, so that a method that does not fit this model says so here."""
        import peft

        unfrozen = [p for name, p in model.named_parameters() if p.requires_grad and not name.startswith(head)]
        with self._explained(), torch.random.fork_rng(devices=[]), quiet(), contextlib.redirect_stderr(io.StringIO()):
            torch.manual_seed(self._seed)
            wrapped: nn.Module = peft.get_peft_model(model, self.config)
            was_training = wrapped.training
            token = torch.ones(1, 1, dtype=torch.long, device=next(model.parameters()).device)
            if not token.is_meta:  # without weights there is nothing to try
                with torch.no_grad():
                    wrapped.eval()(input_ids=token, attention_mask=token)
            wrapped.train(was_training)
        on_top = {id(parameter) for path in head for parameter in trained_copy(model.get_submodule(path)).parameters()}
        for parameter in wrapped.parameters():
            if id(parameter) in on_top:
                parameter.requires_grad_(True)
        if not any(parameter.requires_grad and id(parameter) not in on_top for parameter in wrapped.parameters()):
            raise ConfigError(
                f"a method must train something beside the head, `{self.label}` finds nothing to train in this model; "
                f"name layers that it can change with `target_modules`"
            )
        for parameter in unfrozen:  # peft freezes all that is not its own, what a method beside it trains as well
            parameter.requires_grad_(True)
        self._wrapped.append(wrapped)
        return wrapped

    def begin(self, n_steps: int) -> None:
        """Tell AdaLoRA how long it has; phases that would not fit are cut to a tenth and a third of the steps."""
        if hasattr(self.tuner, "rankallocator"):
            config = self.tuner.peft_config["default"]
            config.total_step = n_steps
            config.tinit, config.tfinal = min(config.tinit, n_steps // 10), min(config.tfinal, n_steps // 3)
            self.tuner.rankallocator.set_total_step(n_steps)

    def after_step(self, step: int) -> None:
        allocate = getattr(self.tuner, "update_and_allocate", None)
        if allocate is not None:
            allocate(step)

    def penalty(self) -> Tensor | None:
        """AdaLoRA's pull towards orthogonal factors, |P P^T - I|_F and |Q^T Q - I|_F, averaged over the factors.

        peft adds it to a loss that the model computes itself, which ours does not. Source: Zhang et al., 2023,
        arXiv:2303.10512, eq. 4 (without the square, as peft has it).
        """
        if self.kind != "adalora":
            return None
        terms = []
        for name, factor in self.tuner.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                gram = factor @ factor.T if ".lora_A." in name else factor.T @ factor
                terms.append(torch.linalg.norm(gram - torch.eye(len(gram), device=gram.device)))
        return torch.stack(terms).mean() * float(self.config.orth_reg_weight)

    def progress(self) -> dict[str, Tensor]:
        if self.kind != "adalora":
            return {}
        allocator = self.tuner.rankallocator
        kept = {f"{what}/{name}": value for what in _IMPORTANCE for name, value in getattr(allocator, what).items()}
        pattern = self.tuner.peft_config["default"].rank_pattern or {}
        return kept | {f"rank_pattern/{name}": torch.tensor(ranks) for name, ranks in pattern.items()}

    def resume(self, progress: dict[str, Tensor]) -> None:
        if self.kind != "adalora":
            return
        found: dict[str, dict[str, Any]] = {what: {} for what in (*_IMPORTANCE, "rank_pattern")}
        device = next(self.tuner.parameters()).device
        for key, value in progress.items():
            what, _, name = key.partition("/")
            found[what][name] = value.tolist() if what == "rank_pattern" else value.to(device)
        self.tuner.peft_config["default"].rank_pattern = found.pop("rank_pattern") or None
        for what, values in found.items():
            setattr(self.tuner.rankallocator, what, values)

    def save(self, folder: str) -> bool:
        """Write the adapter in peft's own format, if that includes the head; returns whether it does."""
        if not getattr(self.config, "modules_to_save", None):
            return False
        with quiet():
            if self.kind == "adalora":  # the kept values may be older than the last ranks: store all, zeros included
                self.tuner.peft_config["default"].rank_pattern = None
            self._wrapped[0].save_pretrained(folder, save_embedding_layers=False)  # its check would ask the hub
        return True

    def merge(self) -> nn.Module:
        wrapped = self._wrapped.pop()
        _keep_trained_head(wrapped)
        with self._explained():
            merged: nn.Module = wrapped.merge_and_unload()
        return merged

    def unwrap(self) -> nn.Module:
        wrapped = self._wrapped.pop()
        _keep_trained_head(wrapped)
        model: nn.Module = wrapped.get_base_model() if self.config.is_prompt_learning else wrapped.unload()
        return model

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what peft raises into an error with a remedy."""
        try:
            yield
        except _REFUSALS as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise ConfigError(
                f"peft must be able to put `{self.label}` on this model, it says: {reason}; set the field that this "
                f"names, as in `loha(r=8)`, or leave the method out"
            ) from error


_IMPORTANCE = ("ipt", "exp_avg_ipt", "exp_avg_unc")


def trained_copy(module: nn.Module) -> nn.Module:
    """What peft trains of one of its `modules_to_save`; another module as it is."""
    from peft.utils import ModulesToSaveWrapper

    if not isinstance(module, ModulesToSaveWrapper):
        return module
    copies: dict[str, nn.Module] = module.modules_to_save
    return copies[module.active_adapter]


def _keep_trained_head(wrapped: nn.Module) -> None:
    """Put the trained copies in the place of peft's wrappers, which its `unload` does only where they hold a weight."""
    from peft.utils import ModulesToSaveWrapper

    for path, module in list(wrapped.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            wrapped.set_submodule(path, trained_copy(module))
