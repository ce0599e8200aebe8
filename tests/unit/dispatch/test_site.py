"""What a site has of the orders that it gets."""

from __future__ import annotations

from pathlib import Path

from fedpkg.dispatch.site import PackageOnDisk, Site
from fedpkg.replies.reading import template_of, tensors_of
from fedpkg.types import ReplyKind
from fedpkg.waist.order import Order, ReplySpec, TensorSpec, digest_of


def test_specifications_of_many_rounds_take_the_room_of_one(tmp_path: Path, misbehave: PackageOnDisk) -> None:
    model = template_of((TensorSpec("w", "float32", (3, 4)), TensorSpec("b", "float32", (4,), is_buffer=True)))
    assert model is not None
    site = Site(tmp_path, misbehave)
    readings = []
    for round_number in (1, 2):
        clip = {"name": "clip", "max_norm": 1 / round_number}
        spec = ReplySpec(kind=ReplyKind.UPDATE, tensors=tensors_of(model), transforms=(clip,))
        site.know(spec, digest := digest_of(spec))
        order = Order(
            task_id="t",
            session_id="s",
            round_number=round_number,
            client_id="c",
            entry_point="train",
            package=misbehave.digest,
            reply_spec=digest,
        )
        reading = site.job(order).reading
        assert reading.spec == spec
        readings.append(reading)
    assert readings[0].spec.tensors is readings[1].spec.tensors
    assert readings[0].templates[""] is readings[1].templates[""]
