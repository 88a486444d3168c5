"""Several processes that share a batch train what one process trains with the whole of it."""

import os
import socket
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

RANK = """
import sys, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
import torch.nn.functional as F
from deltaproof.backbones import tiny_backbone
from deltaproof.methods.tuned import attach
from deltaproof.testing.bench import TARGETS, Bench
from deltaproof.training.optimizer import adamw

text, rank, port = sys.argv[1], int(sys.argv[2]), sys.argv[3]
if rank >= 0:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
tuned = attach(tiny_backbone("bert"), text)
batch, targets = Bench("bert").batch(tuned.backbone), torch.tensor(TARGETS)
if rank >= 0:
    rows = slice(2 * rank, 2 * rank + 2)
    batch, targets = {name: value[rows] for name, value in batch.items()}, targets[rows]
model = DistributedDataParallel(tuned) if rank >= 0 else tuned
optimizer = adamw(tuned.trained().values(), 1e-2, 0.1, torch.device("cpu"))
for _ in range(20):
    F.cross_entropy(model.train()(**batch).logits, targets).backward()
    optimizer.step()
    optimizer.zero_grad()
torch.save({name: value.clone() for name, value in tuned.state().items()}, sys.argv[4])
"""


@pytest.mark.parametrize("text", ["loreft(tied=False)", "pica(rank=4)", "together(serial, parallel, prefix(length=3))"])
def test_two_processes_train_what_one_does(text, tmp_path):
    """Of LoReFT, R stays orthonormal under weight decay there too."""
    import torch

    from deltaproof.methods.orthonormal import orthonormal

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen([sys.executable, "-c", RANK, text, str(rank), port, str(tmp_path / str(rank))],
                         env=environment, stderr=subprocess.PIPE, text=True)
        for rank in (-1, 0, 1)
    ]  # fmt: skip
    for process in running:
        _, words = process.communicate(timeout=300)
        assert process.returncode == 0, words
    alone, first, second = (torch.load(tmp_path / str(rank)) for rank in (-1, 0, 1))
    for name, value in alone.items():
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0, msg=name)
        torch.testing.assert_close(
            first[name], value, rtol=2e-2, atol=2e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
        if name.endswith("basis"):
            rows = orthonormal(first[name]).T
            torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-5, rtol=0)
