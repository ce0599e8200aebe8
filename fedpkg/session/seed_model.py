"""The model that a session starts from: a file, or the result of the package's build entry point."""

from __future__ import annotations

import logging
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from fedpkg.config import RunConfig
from fedpkg.controller.failed_call import entry_point_failed
from fedpkg.dispatch.site import PackageOnDisk
from fedpkg.errors import ConfigError, StoreError
from fedpkg.log import event
from fedpkg.session.limits import isolation_of, limits_of
from fedpkg.types import ReplyKind
from fedpkg.waist.executor import Executor
from fedpkg.waist.order import Order, ReplySpec, digest_of
from fedpkg.waist.place import BUILD

logger = logging.getLogger("fedpkg.session")

if TYPE_CHECKING:
    from fedpkg.formats.base import ModelForm, Suffix
    from fedpkg.weights.weights import Weights


def seed_model_of(
    config: RunConfig, package: PackageOnDisk, executor: Executor, folder: Path, session_id: str
) -> tuple[Weights, ModelForm, bool]:
    """The seed model, configured or built by the package; its form; and whether its buffers are known."""
    from fedpkg.fedn.helpers import BARE_SUFFIXES
    from fedpkg.formats.base import BARE
    from fedpkg.formats.buffers import are_told
    from fedpkg.formats.model_file import read_seed_model

    path = (
        Path(config.seed_model)
        if config.seed_model is not None
        else build_seed(config, package, executor, folder, session_id)
    )
    bare = bare_form(config, package)
    weights, form = read_seed_model(path, buffers=config.buffers, bare=bare)
    if bare is None and form.suffix in BARE and path.suffix != form.suffix:
        helper = next(name for name, suffix in BARE_SUFFIXES.items() if suffix == form.suffix)
        about = f"{path} does not say its format; by its content it is a file of the {helper} ({form.suffix}). If not, "
        event(logger, logging.WARNING, "seed_model.format", about=f"{about}set helper to the one that wrote it")
    if bad := non_finite(weights):
        raise ConfigError(
            f"seed model {path}: tensor '{bad}' has NaN or infinite values",
            hint="if it is a constant of the module (a causal mask), keep it out of the file by register_buffer(…, "
            f'persistent=False), or declare it as a buffer: buffers: ["{bad}"] in the run.yaml',
        )
    return weights, form, are_told(weights, path, patterns=config.buffers)


def non_finite(seed_model: Weights) -> str | None:
    """The first tensor with non-finite values, which only constant buffers (a causal mask) may have."""
    from fedpkg.formats.buffers import usual_buffers
    from fedpkg.weights.weights import Weights

    statistics = frozenset(usual_buffers(seed_model))
    return seed_model.first_non_finite(Weights(seed_model, buffers=seed_model.buffers - statistics))


def bare_form(config: RunConfig, package: PackageOnDisk, entry_point: str = "train") -> Suffix | None:
    """The suffix for model files whose contents do not show their format, if the run or the package requests one.

    If a package's scripts name several helpers, the helper in the script of ``entry_point`` and its imports is used, or
    the helper of `train`.
    """
    from fedpkg.compute_package.imports import texts_of, trees_in, used_by
    from fedpkg.compute_package.review import script_of
    from fedpkg.dispatch.forkserver import scripts_of
    from fedpkg.fedn.helpers import BARE_SUFFIXES, helper_named, mention_helper

    texts = texts_of(package.folder, scripts_of(package))
    trees = trees_in(texts) if mention_helper(texts.values()) else {}
    named = config.helper or helper_named(trees.values())
    for entry in filter(None, map(package.spec.entry_points.get, (entry_point, "train"))):
        if named is None and (script := script_of(entry.command)) is not None:
            named = helper_named(used_by(package.folder / script, trees))
    return BARE_SUFFIXES.get(named or "")


def build_seed(config: RunConfig, package: PackageOnDisk, executor: Executor, folder: Path, session_id: str) -> Path:
    """Run the build entry point; return the model file that it wrote.

    Raises:
        EntryPointFailed: it failed; the error contains the end of its log.
        StoreError: it failed because the disk is full.
    """
    from fedpkg.controller.receiving import Receiver
    from fedpkg.replies.reading import Reading

    suffix = bare_form(config, package, BUILD) or ".npz"
    spec = ReplySpec(kind=ReplyKind.SEED, suffix=suffix)
    order = _build_order(config, package.digest, digest_of(spec), session_id)
    executor.know(spec, order.reply_spec)
    received = Receiver(executor, folder, Reading(spec), lambda name: None)(order, executor.submit(order).result())
    answer = received.answer
    if answer.failure is not None and answer.failure.kind == "no_space":
        raise StoreError(
            f"the disk of {folder} is full: build failed ({answer.failure.message}); nothing was recorded",
            hint="free space (`fedpkg home prune` helps), then start it again",
            path=str(folder),
        )
    if received.path is None:
        hint = _build_by_hand(config, f"seed{suffix}")
        raise entry_point_failed(BUILD, answer, folder / Path(answer.folder).name, hint=hint)
    return received.path


def _build_order(config: RunConfig, package: str, reply_spec: str, session_id: str) -> Order:
    return Order(
        task_id=f"{session_id}/build",
        session_id=session_id,
        round_number=0,
        client_id="",
        entry_point=BUILD,
        package=package,
        reply_spec=reply_spec,
        seed=config.seed,
        arguments=dict(config.arguments.get(BUILD, {})),
        argument_style=config.argument_style or "",
        run_config=dict(config.run_config),
        environment=dict(config.environment),
        threads=config.executor.threads,
        timeout_s=config.executor.timeout_s,
        limits=limits_of(config.limits),
        isolation=isolation_of(config),
        log_bytes=config.limits.log_bytes,
    )


def _build_by_hand(config: RunConfig, output: str) -> str:
    gpus = f" --gpus {math.ceil(config.executor.needs.gpus)}" if config.executor.needs.gpus else ""
    isolate = " --isolate" if config.isolate.enabled else ""
    env = "" if config.python_env == "auto" else f" --env {config.python_env}"
    return f"fedpkg package call {shlex.quote(config.package)} build --output {output}{gpus}{env}{isolate}"
