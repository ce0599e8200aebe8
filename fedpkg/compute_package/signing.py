"""Signatures of packages: Ed25519 keys, the statement that is signed, and the signature file beside a package.

Keys are files in the formats of openssl and ssh-keygen. Public keys are read without any library; making keys, signing
and checking need ``cryptography``, which is imported only then.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import stat
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpkg.errors import PackageError
from fedpkg.files import atomic_write, read_bounded

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# The first line of the signed text and of the file, so that a signature of anything else by the same key is not
# accepted as a package's.
FORMAT = "fedpkg package signature v1"
SUFFIX = ".sig"
MAX_SIGNATURES = 16
_MAX_BYTES = 16 << 10  # of a signature file, and of a key file
_SIGNER = "ed25519:"
_DER = bytes.fromhex(
    "302a300506032b6570032100"
)  # SubjectPublicKeyInfo of an Ed25519 key, before its 32 bytes [RFC 8410]
_SSH = b"ssh-ed25519"
_KEY_HINT = "make one with: fedpkg package keygen FILE (or openssl genpkey -algorithm ed25519, ssh-keygen -t ed25519)"


@dataclass(frozen=True)
class Signature:
    """One key's signature of a package's digest."""

    signer: str  # ed25519:<base64 of the public key>
    signature: str  # base64

    def holds(self, digest: str) -> bool:
        """Whether the signature is valid.

        Raises:
            PackageError: If ``cryptography`` is not installed.
        """
        _need_cryptography("checking a signature")
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            key = Ed25519PublicKey.from_public_bytes(_bytes(self.signer.removeprefix(_SIGNER), 32))
            key.verify(_bytes(self.signature, 64), statement(digest))
        except (InvalidSignature, ValueError):
            return False
        return True

    def to_json(self) -> dict[str, str]:
        return {"signer": self.signer, "signature": self.signature}


def statement(digest: str) -> bytes:
    """The bytes that are signed: the format and the digest, each followed by a newline."""
    return f"{FORMAT}\nsha256:{digest}\n".encode("ascii")


def signature_path(package: Path) -> Path:
    """``package.tar.gz.sig`` beside ``package.tar.gz``; ``client.sig`` beside the folder ``client``."""
    return Path(f"{os.path.abspath(package)}{SUFFIX}")


# ---- keys


def make_key(path: Path) -> str:
    """Write a new private key (PKCS #8 PEM, readable only by its owner) and ``<path>.pub``; returns the signer's name.

    Raises:
        PackageError: If a file already exists, or cannot be written.
    """
    _need_cryptography("making a key")
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    written: list[Path] = []
    try:
        for file, data, mode in ((path, private, 0o600), (Path(f"{path}.pub"), public, 0o644)):
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as out:
                written.append(file)
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
    except OSError as error:
        for file in written:
            file.unlink()
        hint = "choose another name; keys are never overwritten" if isinstance(error, FileExistsError) else None
        raise PackageError(f"{error.filename}: cannot be written: {error.strerror}", hint=hint) from error
    return _name_of(key)


def read_private_key(path: Path, *, passphrase: Callable[[], str]) -> Ed25519PrivateKey:
    """A private key in PKCS #8 PEM or OpenSSH's format; ``passphrase`` is called if the key has one."""
    _need_cryptography("signing")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    data = _read(path, "key")
    is_ssh = b"BEGIN OPENSSH PRIVATE KEY" in data
    load: Any = serialization.load_ssh_private_key if is_ssh else serialization.load_pem_private_key
    try:
        try:
            key = load(data, None)
        except TypeError:  # the key has a passphrase
            key = load(data, passphrase().encode())
        except ValueError as error:
            if "password" not in str(error):  # OpenSSH's keys with a passphrase
                raise
            key = load(data, passphrase().encode())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        problem, hint = "is not a private key, or is damaged, or has another passphrase", _KEY_HINT
        if isinstance(error, UnsupportedAlgorithm):  # only OpenSSH's format with a passphrase needs bcrypt
            problem, hint = f"cannot be read: {error}", "pip install 'fedpkg[sign]'"
        elif b"PUBLIC KEY" in data or data.startswith(_SSH):
            problem = "is a public key; signing needs the private key"
        raise PackageError(f"{path}: {problem}", hint=hint, path=str(path)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise PackageError(f"{path}: is not an Ed25519 key", hint=_KEY_HINT, path=str(path))
    return key


def is_exposed(key: Path) -> bool:
    """Whether users other than its owner may read a private key's file."""
    return bool(stat.S_IMODE(key.stat().st_mode) & 0o077)


def read_public_key(path: Path) -> str:
    """The name (``ed25519:…``) of the signer whose public key is in a file: PEM, or one line of OpenSSH.

    Raises:
        PackageError: If it does not exist, or is not a public Ed25519 key.
    """
    data = _read(path, "key")
    raw: bytes | None = None
    try:
        if data.startswith(_SSH + b" "):
            blob = base64.b64decode(data.split()[1], validate=True)
            head = struct.pack(">I", len(_SSH)) + _SSH + struct.pack(">I", 32)
            raw = blob[len(head) :] if blob.startswith(head) else None
        elif data.lstrip().startswith(b"-----BEGIN PUBLIC KEY-----"):
            lines = data.strip().splitlines()
            der = base64.b64decode(b"".join(lines[1:-1]), validate=True)
            is_whole = lines[-1].strip() == b"-----END PUBLIC KEY-----"
            raw = der[len(_DER) :] if is_whole and der.startswith(_DER) else None
    except (ValueError, IndexError):
        pass
    if raw is None or len(raw) != 32:
        problem = "is a private key, not a public one" if b"PRIVATE KEY-----" in data else "is not a public Ed25519 key"
        hint = "use the .pub file; `openssl pkey -in KEY -pubout` or `ssh-keygen -y -f KEY` makes it from a private key"
        raise PackageError(f"{path}: {problem}", hint=hint, path=str(path))
    return _SIGNER + base64.b64encode(raw).decode()


def _name_of(key: Ed25519PrivateKey) -> str:
    return _SIGNER + base64.b64encode(key.public_key().public_bytes_raw()).decode()


# ---- signature files


def sign(digest: str, key: Ed25519PrivateKey) -> Signature:
    return Signature(_name_of(key), base64.b64encode(key.sign(statement(digest))).decode())


def add_signature(path: Path, digest: str, signature: Signature) -> tuple[Signature, ...]:
    """Add a signature to a file; other signers' signatures stay, except those of another package."""
    others: Iterable[Signature] = ()
    if os.path.lexists(path):
        of, there = read_signature_file(path)
        others = [other for other in there if of == digest and other.signer != signature.signer]
    signatures = (*others, signature)
    if len(signatures) > MAX_SIGNATURES:
        raise PackageError(f"{path}: already has {MAX_SIGNATURES} signatures, the maximum", path=str(path))
    document = {"format": FORMAT, "package": f"sha256:{digest}", "signatures": [one.to_json() for one in signatures]}
    try:
        with atomic_write(path) as file:
            file.write(json.dumps(document, indent=2).encode() + b"\n")
    except OSError as error:
        raise PackageError(f"{path}: cannot be written: {error.strerror}", path=str(path)) from error
    return signatures


def read_signatures(path: Path, digest: str) -> tuple[Signature, ...]:
    """The signatures of this package in a file, not yet checked.

    Raises:
        PackageError: If the file does not exist, is damaged, or belongs to another package.
    """
    of, signatures = read_signature_file(path)
    if of != digest:
        raise PackageError(
            f"{path}: is the signature of another package (sha256 {of[:12]}, not {digest[:12]})",
            hint="the package was changed after it was signed; download both again, or ask for a new signature",
            path=str(path),
            digest=digest,
        )
    return signatures


def read_signature_file(path: Path) -> tuple[str, tuple[Signature, ...]]:
    """The digest and the signatures in a file. Raises PackageError if the file does not have exactly this format."""
    data = _read(path, "signature")
    try:
        document = json.loads(data.decode("ascii"), object_pairs_hook=_unique)
        if document.keys() != {"format", "package", "signatures"} or document["format"] != FORMAT:
            raise ValueError(f"it is not a '{FORMAT}'")
        algorithm, _, digest = document["package"].partition(":")
        if algorithm != "sha256" or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise ValueError("'package' is not sha256: followed by 64 hexadecimal digits")
        listed = document["signatures"]
        if not isinstance(listed, list) or not 0 < len(listed) <= MAX_SIGNATURES:
            raise ValueError(f"'signatures' is not a list of 1 to {MAX_SIGNATURES} signatures")
        signatures = tuple(read_signature(one) for one in listed)
        if len({one.signer for one in signatures}) != len(signatures):
            raise ValueError("it contains two signatures of one signer")
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        reason = str(error).splitlines()[0] if isinstance(error, ValueError) else "its structure is wrong"
        raise PackageError(
            f"{path}: is not a signature file: {reason}",
            hint="to make one: fedpkg package sign PACKAGE --key KEY",
            path=str(path),
        ) from None
    return digest, signatures


def read_signature(value: Any) -> Signature:
    """A signature from its JSON. Raises ValueError."""
    if not isinstance(value, dict) or value.keys() != {"signer", "signature"}:
        raise ValueError("a signature must have exactly the keys 'signer' and 'signature'")
    if not is_signer(value["signer"]):
        raise ValueError("'signer' is not ed25519: followed by the base64 of 32 bytes")
    _bytes(value["signature"], 64)
    return Signature(value["signer"], value["signature"])


def is_signer(text: Any) -> bool:
    try:
        return isinstance(text, str) and text.startswith(_SIGNER) and bool(_bytes(text.removeprefix(_SIGNER), 32))
    except ValueError:
        return False


def _bytes(text: Any, size_bytes: int) -> bytes:
    """Decodes canonical base64 only: otherwise one signature could be written, and counted, in several ways."""
    if isinstance(text, str) and text.isascii():
        try:
            data = base64.b64decode(text, validate=True)
        except binascii.Error:
            data = b""
        if len(data) == size_bytes and base64.b64encode(data).decode() == text:
            return data
    raise ValueError(f"a value is not the base64 of {size_bytes} bytes")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it contains a key twice")
    return found


def _read(path: Path, what: str) -> bytes:
    try:
        return read_bounded(path, _MAX_BYTES)
    except OSError as error:
        raise PackageError(f"{what} {path}: cannot be read: {error.strerror}", path=str(path)) from error


def _need_cryptography(purpose: str) -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise PackageError(
            f"{purpose} needs the library cryptography, which is not installed here",
            hint="pip install 'fedpkg[sign]'",
        ) from error
