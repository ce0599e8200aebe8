"""``fedpkg package keygen``, ``sign`` and ``verify``: who vouches for a package."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from fedpkg.cli import output
from fedpkg.cli.completing import packages
from fedpkg.cli.options import Settings, common_options
from fedpkg.errors import PackageError

_PATH = click.Path(path_type=Path)
_PACKAGE = click.argument("package", metavar="PACKAGE", type=_PATH, shell_complete=packages)


@click.command()
@click.argument("path", metavar="FILE", type=_PATH)
@common_options
@click.pass_obj
def keygen(settings: Settings, path: Path) -> None:
    """Make a key for signing packages.

    \b
      fedpkg package keygen ~/.ssh/fedpkg

    FILE is the private key: keep it secret. FILE.pub is the public key, for others. Both are in PEM format. Ed25519
    keys made by openssl or ssh-keygen work as well.
    """
    from fedpkg.compute_package.signing import make_key

    signer = make_key(path)
    if settings.json:
        output.document({"private_key": path, "public_key": f"{path}.pub", "signer": signer})
        return
    output.facts([("private key", str(path)), ("public key", f"{path}.pub"), ("signer", signer)])


@click.command()
@_PACKAGE
@click.option("--key", metavar="FILE", type=_PATH, required=True, help="Your private key.")
@click.option("-o", "--output", "target", metavar="FILE", type=_PATH, help="[default: PACKAGE.sig]")
@common_options
@click.pass_obj
def sign(settings: Settings, package: Path, key: Path, target: Path | None) -> None:
    """Sign a package with your key.

    \b
      fedpkg package sign package.tar.gz --key ~/.ssh/fedpkg

    PACKAGE is an archive, or a folder, which is signed as the archive that `build` makes of it. Signatures of others in
    the same file are kept.
    """
    from fedpkg.compute_package import signing
    from fedpkg.compute_package.unpack import package_digest

    private = signing.read_private_key(key, passphrase=lambda: _passphrase(key))
    if signing.is_exposed(key):
        output.words(f"warning: others may read {key}; chmod 600 {shlex.quote(str(key))}")
    digest = package_digest(package)
    signature = signing.sign(digest, private)
    target = target or signing.signature_path(package)
    signing.add_signature(target, digest, signature)
    if settings.json:
        output.document({"signature": target, "digest": digest, "signer": signature.signer})
        return
    output.facts([("signature", output.near(target)), ("sha256", digest), ("signer", signature.signer)])


@click.command()
@_PACKAGE
@click.option("--signature", "path", metavar="FILE", type=_PATH, help="[default: PACKAGE.sig]")
@click.option("--signer", metavar="WHO", help="Required signer: the file of a public key, or ed25519:…")
@common_options
@click.pass_obj
def verify(settings: Settings, package: Path, path: Path | None, signer: str | None) -> None:
    """Verify the signatures of a package.

    \b
      fedpkg package verify package.tar.gz --signer alice.pub

    Without --signer, every signature in the file must be valid. The command cannot know whose keys they are.
    """
    from fedpkg.compute_package import signing, trust
    from fedpkg.compute_package.unpack import package_digest

    wanted = None if signer is None else trust.resolve_allowed([signer])[0]
    path = path or signing.signature_path(package)
    digest = package_digest(package)
    signatures = signing.read_signatures(path, digest)
    if wanted is not None:
        signatures = tuple(one for one in signatures if one.signer == wanted)
        if not signatures:
            raise PackageError(f"{path}: has no signature of {wanted}", path=str(path), signer=wanted)
    for one in signatures:
        if not one.holds(digest):
            raise PackageError(
                f"{path}: the signature of {one.signer} is not genuine",
                hint="the file was changed; get it again from the signer of the package",
                path=str(path),
                signer=one.signer,
            )
    if settings.json:
        output.document({"digest": digest, "signers": [one.signer for one in signatures]})
        return
    output.facts([("sha256", digest), *(("signed by", one.signer) for one in signatures)])


def signers_of(package: Path, digest: str) -> list[dict[str, str]]:
    """For `inspect`: who signed a package, by the file beside it, and what the check of it says."""
    from fedpkg.compute_package import signing

    path = signing.signature_path(package)
    if not path.exists():
        return []
    found = []
    try:
        for one in signing.read_signatures(path, digest):
            found.append({"signer": one.signer, "says": "genuine" if one.holds(digest) else "NOT GENUINE"})
    except PackageError as error:
        output.words(f"warning: {error.message}")
    return found


def _passphrase(key: Path) -> str:
    return str(click.prompt(f"Passphrase of {key}", hide_input=True, err=True))
