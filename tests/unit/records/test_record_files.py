"""RecordDict ⇄ file: to the bit, mapped, and what damaged files say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fedpkg.apps import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from fedpkg.apps.message_file import read_message, write_message

SUFFIX = pytest.mark.parametrize("suffix", [".npz", ".safetensors"])


@SUFFIX
def test_message_comes_back_to_the_bit(tmp_path: Path, suffix: str) -> None:
    shared = torch.randn(3, 4)
    tensors = {
        "w": shared,
        "tied": shared,
        "bf16": torch.randn(2, 3).bfloat16(),
        "f8": torch.randn(4).to(torch.float8_e4m3fn),
        "other f8": torch.randn(3).to(torch.float8_e5m2fnuz),
        "T/%": torch.arange(6).reshape(2, 3).T,
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 3),
        "complex": torch.randn(2, dtype=torch.complex128),
    }
    values = {
        "b": b"\0x",
        "nan": float("nan"),
        "text": "\ud800",
        "n": 2**64 - 1,
        "long": [0.5] * 1000,
        "blob": b"x" * 9999,
    }
    content = RecordDict(
        {"arrays": ArrayRecord(tensors), "config": ConfigRecord(values), "": MetricRecord({"loss": np.float32(0.5)})}
    )
    message = Message(content, 4, "train.apply_gradients", group_id="2")
    write_message(tmp_path / f"m{suffix}", message)
    again = read_message(tmp_path / f"m{suffix}")
    assert again.metadata == message.metadata
    assert list(again.content) == list(content) and list(again.content["arrays"]) == list(tensors)
    assert again.content["arrays"] == content["arrays"] and again.content[""] == content[""]
    assert repr(again.content["config"]) == repr(content["config"])
    found = again.content["arrays"].to_torch_state_dict()
    assert found["w"] is found["tied"]
    assert all(torch.equal(found[key].float(), one.float()) for key, one in tensors.items() if key != "complex")
    assert torch.equal(found["complex"], tensors["complex"])
