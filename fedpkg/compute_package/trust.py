"""Checks packages against a list of the digests and signers that may run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpkg.compute_package.signing import (
    Signature,
    is_signer,
    read_public_key,
    read_signature,
    read_signatures,
    signature_path,
)
from fedpkg.errors import PackageError


def resolve_allowed(allow: Iterable[str]) -> list[str]:
    """The list with every path of a public key replaced by the signer's name, so that it does not depend on files.

    Raises:
        PackageError: If a key file cannot be read.
    """
    return [text if text.startswith("sha256:") or is_signer(text) else read_public_key(Path(text)) for text in allow]


def admit(
    digest: str, package: Path, allow: Sequence[str] | None, *, signature: Path | None = None
) -> tuple[Signature, ...]:
    """Check a package against a resolved list; returns the signatures that allow it (none if its digest does).

    Args:
        allow: None allows every package, an empty list none.
        signature: Its signature file; default: the one beside it.

    Raises:
        PackageError: If it is not allowed; the message has its signers, if any.
    """
    if allow is None or f"sha256:{digest}" in allow:
        return ()
    found: tuple[Signature, ...] = ()
    file = signature or signature_path(package)
    why = "its digest is not in the list"
    if any(is_signer(entry) for entry in allow):
        if signature is None and not file.exists():
            why += f", and it has no signature file {file}"
        else:
            found = read_signatures(file, digest)
            if trusted := trusted_among(found, digest, allow):
                return trusted
            why += f", {_who(found, digest, allow)}"
    raise _refused(f"package {package}", digest, why)


def gate(
    package: Path, allow: Iterable[str] | None, *, signature: str | None = None
) -> Callable[[str], tuple[Signature, ...]]:
    """``admit`` for a list that has not been resolved, as a function of the digest."""
    resolved = None if allow is None else resolve_allowed(allow)
    file = None if signature is None else Path(signature)
    return lambda digest: admit(digest, package, resolved, signature=file)


def admit_again(digest: str, allow: Sequence[str] | None, recorded: Sequence[Mapping[str, Any]]) -> None:
    """``admit`` for a resumed session: checks the signatures again that were recorded at its start.

    Raises:
        PackageError: If the package is not allowed.
    """
    if allow is None or f"sha256:{digest}" in allow:
        return
    try:
        signatures = [read_signature(one) for one in recorded]
    except ValueError as error:
        raise _refused("the session's package", digest, f"a recorded signature is damaged: {error}") from error
    if not trusted_among(signatures, digest, allow):
        raise _refused("the session's package", digest, "no recorded signature is by a signer in the list")


def trusted_among(signatures: Iterable[Signature], digest: str, allow: Sequence[str]) -> tuple[Signature, ...]:
    """The valid signatures by signers in the list; others are not checked."""
    return tuple(one for one in signatures if one.signer in allow and one.holds(digest))


def _who(found: Sequence[Signature], digest: str, allow: Sequence[str]) -> str:
    if false := [one.signer for one in found if one.signer in allow]:
        return f"and its signature by {false[0]} is not valid"
    signers = [one.signer for one in found if one.holds(digest)]
    return f"nor are its signers: {', '.join(signers)}" if signers else "and its signature is not valid"


def _refused(what: str, digest: str, why: str) -> PackageError:
    return PackageError(
        f"{what} is not allowed: {why}",
        hint=f"inspect it (fedpkg package inspect); if you trust it, add sha256:{digest}, or its signer, to the list",
        digest=digest,
    )
