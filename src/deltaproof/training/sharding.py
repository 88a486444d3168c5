"""One training over several devices: accelerate's FSDP (version 2) shards values, gradients and optimiser state.

Each process holds its share of every tensor; a layer's values are gathered while it is computed, and let go again.
Zhao et al., 2023, arXiv:2304.11277, sec. 3.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType
from torch import Tensor, distributed, nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.methods.tuned import Tuned
from deltaproof.tasks.text import collate
from deltaproof.training.gradient import BatchGradient, penalty
from deltaproof.training.optimizer import adamw

if TYPE_CHECKING:
    from deltaproof.training.loop import Run


def join_group(rank: int, n_ranks: int, meeting: Path, device: torch.device) -> None:
    """Meet the other processes of a training; from then on every accelerator made here shards.

    Args:
        meeting: a file that does not exist yet, the same for all.
        device: of this process.
    """
    # what accelerate reads its place from; the address is not used, as the group stands when it looks
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n_ranks)}
    os.environ |= {"LOCAL_WORLD_SIZE": str(n_ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "nccl"
    distributed.init_process_group(backend, init_method=f"file://{meeting}", rank=rank, world_size=n_ranks)


def sharding_accelerator(device: torch.device, precision: str) -> Accelerator:
    """An Accelerator over the group's processes. Values stay in fp32 and are gathered so; products run under autocast,
    as on one device."""
    from torch.distributed.fsdp import MixedPrecisionPolicy

    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        reshard_after_forward=True,
        auto_wrap_policy="transformer_based_wrap",
        cpu_ram_efficient_loading=False,
        mixed_precision_policy=MixedPrecisionPolicy(),
    )
    mixed_precision = "no" if precision == "fp32" else precision
    accelerator = Accelerator(mixed_precision=mixed_precision, cpu=device.type == "cpu", fsdp_plugin=plugin)
    if device.type == "cpu":  # there accelerate would replicate the model; torch's FSDP works on a CPU all the same
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = plugin
    return accelerator


def shard(
    tuned: Tuned, learning_rate: float, weight_decay: float, accelerator: Accelerator
) -> tuple[dict[str, nn.Parameter], Any]:
    """Leave to each process its share of the model, layer by layer.

    Returns:
        what is trained, by its stable names, and the optimiser, which accelerate has prepared.
    """
    accelerator.state.fsdp_plugin.transformer_cls_names_to_wrap = layer_classes(tuned.backbone)
    optimizer = adamw(tuned.trained().values(), learning_rate, weight_decay, accelerator.device)
    _, prepared = accelerator.prepare(tuned.model, optimizer)
    return tuned.trained(), prepared


def layer_classes(backbone: Backbone) -> list[str]:
    """Classes of the repeated layers, each of which is gathered by itself; none where layers are shared."""
    stacks = [module for module in backbone.model.modules() if isinstance(module, nn.ModuleList)]
    return sorted({type(layer).__name__ for stack in stacks if len(stack) == backbone.n_layers for layer in stack})


def let_go(tuned: Tuned) -> None:
    """Have the next pass gather anew: a pass without gradients leaves the outermost values gathered, and who changes
    the shares then would not be heeded."""
    from torch.distributed.fsdp import FSDPModule

    for module in tuned.model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


class ShardedGradient(BatchGradient):
    """As on one device, but each process takes every n-th row of a batch: the step's batch stays what it was.

    FSDP averages gradients over the processes, so a process weighs its mean loss by its share of the rows times their
    number. Every process takes part in every pass, with a row of weight 0 where it has none left. Memory that runs out
    ends the run: one process cannot take smaller steps than the others.
    """

    def __call__(self, runs: "Sequence[Run]", rows_of: Sequence[np.ndarray]) -> list[float]:
        """Returns the mean loss over the one run's rows, of all processes."""
        (run,), (rows,) = runs, rows_of
        device, size = self.accelerator.device, run.micro_batch_size
        n_ranks, rank = self.accelerator.num_processes, self.accelerator.process_index
        own, n_passes = rows[rank::n_ranks], math.ceil(math.ceil(len(rows) / n_ranks) / size)
        self.forward.take_up(runs)
        run.tuned.train()
        sums = torch.zeros(2, dtype=torch.float64, device=device)  # loss, tokens
        for start in range(0, n_passes * size, size):
            part = own[start : start + size]
            weight = len(part) / len(rows)
            taken = part if len(part) else rows[:1]
            made = collate(self.rows, taken, self.pad_token_id, self.task.max_length)
            batch = {key: value.to(device) for key, value in made.items()}
            targets = torch.as_tensor(self.rows.targets[taken], dtype=torch.float32, device=device)
            with self.accelerator.autocast():
                loss = self.task.loss(run.tuned(**batch).logits, targets) + penalty(run.tuned)
            self.accelerator.backward(loss * (weight * n_ranks))
            sums += torch.stack([loss.detach().double() * weight, sums.new_tensor(batch["input_ids"].numel())])
        self.forward.put_down(runs)
        distributed.all_reduce(sums)
        run.outcome.examples_seen += len(rows)
        run.outcome.tokens_seen += int(sums[1])
        return [float(sums[0])]


def whole_values(trained: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """The trained values, each gathered from all processes into this one's host memory; all have to ask."""
    return {name: gathered(parameter).detach().cpu() for name, parameter in trained.items()}


def gathered(parameter: Any) -> Tensor:
    found: Tensor = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
    return found


def largest(n_bytes: int | None, device: torch.device) -> int | None:
    """The largest of the processes' numbers; all have to ask."""
    if n_bytes is None:
        return None
    found = torch.tensor(n_bytes, dtype=torch.int64, device=device)
    distributed.all_reduce(found, op=distributed.ReduceOp.MAX)
    return int(found)
