"""Which packages may run: a list of digests and signers, and the check of a package against it."""

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
    """The list with every path of a public key replaced by the signer's name: what holds must not change with a file.

    Raises:
        PackageError: a key file cannot be read.
    """
    return [text if text.startswith("sha256:") or is_signer(text) else read_public_key(Path(text)) for text in allow]


def admit(
    digest: str, package: Path, allow: Sequence[str] | None, *, signature: Path | None = None
) -> tuple[Signature, ...]:
    """Check a package against a resolved list; the signatures by which it was let in (none if by its digest).

    Args:
        allow: None lets every package in, an empty list none.
        signature: its signature file; default: the one beside it.

    Raises:
        PackageError: it is not allowed; says who signed it, if anybody did.
    """
    if allow is None or f"sha256:{digest}" in allow:
        return ()
    found: tuple[Signature, ...] = ()
    file = signature or signature_path(package)
    why = "its digest is not in the list"
    if any(is_signer(entry) for entry in allow):
        if signature is None and not file.exists():
            why += f", and there is no signature {file}"
        else:
            found = read_signatures(file, digest)
            if trusted := trusted_among(found, digest, allow):
                return trusted
            why += f", {_who(found, digest, allow)}"
    raise _refused(f"package {package}", digest, why)


def gate(
    package: Path, allow: Iterable[str] | None, *, signature: str | None = None
) -> Callable[[str], tuple[Signature, ...]]:
    """``admit`` for a list that has not been resolved; waits for the digest."""
    resolved = None if allow is None else resolve_allowed(allow)
    file = None if signature is None else Path(signature)
    return lambda digest: admit(digest, package, resolved, signature=file)


def admit_again(digest: str, allow: Sequence[str] | None, recorded: Sequence[Mapping[str, Any]]) -> None:
    """``admit`` for a session that goes on: by the signatures that were on record when it began, checked again.

    Raises:
        PackageError: the package is not allowed.
    """
    if allow is None or f"sha256:{digest}" in allow:
        return
    try:
        signatures = [read_signature(one) for one in recorded]
    except ValueError as error:
        raise _refused("the session's package", digest, f"a signature on record is damaged: {error}") from error
    if not trusted_among(signatures, digest, allow):
        raise _refused("the session's package", digest, "no signature on record is of a signer in the list")


def trusted_among(signatures: Iterable[Signature], digest: str, allow: Sequence[str]) -> tuple[Signature, ...]:
    """Those that hold, of signers in the list; the others are not even checked."""
    return tuple(one for one in signatures if one.signer in allow and one.holds(digest))


def _who(found: Sequence[Signature], digest: str, allow: Sequence[str]) -> str:
    if false := [one.signer for one in found if one.signer in allow]:
        return f"the signature of {false[0]} on it is not genuine"
    signers = [one.signer for one in found if one.holds(digest)]
    return f"nor is who signed it: {', '.join(signers)}" if signers else "its signature is not genuine"


def _refused(what: str, digest: str, why: str) -> PackageError:
    return PackageError(
        f"{what} is not allowed: {why}",
        hint=f"look at it (fedpkg package inspect); if you trust it, add sha256:{digest}, or its signer, to the list",
        digest=digest,
    )
