"""Training on a real GPU: two slots on one half each, and the same bytes again."""

from __future__ import annotations

from pathlib import Path

import pytest
from workbench import inline, log, make_bench

from fedpkg.devices import Needs, plan_slots, this_machine
from fedpkg.types import ReplyKind

TRAINS = """
import numpy as np
import torch
from torch import nn

assert torch.cuda.device_count() == 1
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10)).cuda()
x, y = torch.randn(256, 64, device="cuda"), torch.randint(10, (256,), device="cuda")
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(20):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
np.savez(sys.argv[1], **{name: tensor.cpu().numpy() for name, tensor in model.state_dict().items()})
print(os.getpid())
"""


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("name", ["forkserver", "resident"])
def test_two_tasks_on_halves_of_a_gpu_train_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    import torch

    machine = this_machine(with_gpus=True)
    if not machine.gpus or not torch.cuda.is_available():
        pytest.skip(f"no CUDA here: {machine.gpu_note or 'PyTorch sees no device'}")
    package = inline(tmp_path, TRAINS)
    bench = make_bench(name, tmp_path, package, slots=plan_slots(machine, Needs(gpus=0.5), 2))
    try:
        futures = [bench.submit(package, reply_kind=ReplyKind.SEED, seed=1234) for _ in range(6)]
        results = [future.result(100) for future in futures]
        for result in results:
            assert result.status == "ok", (result.failure, log(result))
        assert len({result.reply.read_bytes() for result in results if result.reply}) == 1
        processes = {log(result, "stdout") for result in results}
        assert len(processes) <= 2 if name == "resident" else len(processes) == 6  # warm: no task ran cold
    finally:
        bench.executor.close()
