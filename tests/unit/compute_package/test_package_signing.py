"""Signatures hold for one package and one key; keys of openssl and ssh-keygen are read; anything odd is refused."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from fedpkg.compute_package import signing
from fedpkg.compute_package.build import build_package
from fedpkg.compute_package.signing import Signature
from fedpkg.compute_package.trust import admit, admit_again, resolve_allowed
from fedpkg.compute_package.unpack import package_digest
from fedpkg.errors import PackageError

DIGEST, OTHER = "0" * 64, "f" * 64


def no_passphrase() -> str:
    raise AssertionError("asked for a passphrase")


def key_in(folder: Path, name: str = "Schlüssel 1") -> tuple[Path, str]:
    return folder / name, signing.make_key(folder / name)


def signed(folder: Path, name: str = "Schlüssel 1", digest: str = DIGEST) -> Signature:
    path = folder / name
    if not path.exists():
        signing.make_key(path)
    return signing.sign(digest, signing.read_private_key(path, passphrase=no_passphrase))


# ---- keys


def test_key_is_for_its_owner_alone_and_never_overwritten(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path, signer = key_in(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not signing.is_exposed(path)
    assert signing.read_public_key(Path(f"{path}.pub")) == signer
    content = path.read_bytes()
    with pytest.raises(PackageError, match="File exists") as caught:
        signing.make_key(path)
    assert caught.value.hint == "choose another name; keys are never overwritten"
    Path(f"{tmp_path / 'other'}.pub").touch()
    with pytest.raises(PackageError, match=r"other\.pub: cannot be written: File exists"):
        signing.make_key(tmp_path / "other")
    assert not (tmp_path / "other").exists()
    assert path.read_bytes() == content


def run(*words: object) -> None:
    if shutil.which(str(words[0])) is None:
        pytest.skip(f"{words[0]} is not installed")
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


def test_keys_of_openssl_are_read_and_openssl_reads_ours(tmp_path: Path) -> None:
    key, public = tmp_path / "k", tmp_path / "k.pub"
    run("openssl", "genpkey", "-algorithm", "ed25519", "-out", key)
    run("openssl", "pkey", "-in", key, "-pubout", "-out", public)
    assert signed(tmp_path, "k").signer == signing.read_public_key(public)
    ours, signer = key_in(tmp_path)
    run("openssl", "pkey", "-in", ours, "-pubout", "-out", tmp_path / "again.pub")
    assert signing.read_public_key(tmp_path / "again.pub") == signer


def test_openssl_can_check_a_signature(tmp_path: Path) -> None:
    path, _ = key_in(tmp_path)
    (tmp_path / "statement").write_bytes(signing.statement(DIGEST))
    (tmp_path / "signature").write_bytes(base64.b64decode(signed(tmp_path).signature))
    words = ["pkeyutl", "-verify", "-rawin", "-in", "statement", "-sigfile", "signature", "-pubin", "-inkey"]
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    subprocess.run(["openssl", *words, f"{path}.pub"], cwd=tmp_path, check=True, capture_output=True)
    assert signing.statement(DIGEST) == b"fedpkg package signature v1\nsha256:" + DIGEST.encode() + b"\n"


def test_keys_of_ssh_keygen_are_read(tmp_path: Path) -> None:
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ä comment", "-f", tmp_path / "k")
    assert signed(tmp_path, "k").signer == signing.read_public_key(tmp_path / "k.pub")


def test_passphrase_is_asked_for_where_there_is_one(tmp_path: Path) -> None:
    pytest.importorskip("bcrypt")
    key = ed25519.Ed25519PrivateKey.generate()
    locked = serialization.BestAvailableEncryption("schön".encode())
    path = tmp_path / "locked"
    for form in (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.OpenSSH):
        path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, locked))
        assert isinstance(signing.read_private_key(path, passphrase=lambda: "schön"), ed25519.Ed25519PrivateKey)
        with pytest.raises(PackageError, match="has another passphrase"):
            signing.read_private_key(path, passphrase=lambda: "schon")


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    path, _ = key_in(tmp_path)
    public = Path(f"{path}.pub")
    with pytest.raises(PackageError, match="is a private key, not a public one") as caught:
        signing.read_public_key(path)
    assert "openssl pkey" in str(caught.value.hint)
    with pytest.raises(PackageError, match="is a public key; signing needs the private key"):
        signing.read_private_key(public, passphrase=no_passphrase)
    of_rsa = rsa.generate_private_key(65537, 1024).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "rsa").write_bytes(of_rsa)
    with pytest.raises(PackageError, match="is not an Ed25519 key"):
        signing.read_private_key(tmp_path / "rsa", passphrase=no_passphrase)
    with pytest.raises(PackageError, match="cannot be read: No such file"):
        signing.read_public_key(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(PackageError, match="not a regular file"):
        signing.read_public_key(tmp_path / "fifo")
    (tmp_path / "big").write_bytes(b"x" * 20_000)
    with pytest.raises(PackageError, match="larger than 16 KiB"):
        signing.read_public_key(tmp_path / "big")
    lines = public.read_text().splitlines()
    wrong: list[str | bytes] = [
        "",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "ssh-rsa AAAAB3NzaC1yc2E=",
        "\n".join(lines[:2]),
        f"{lines[0]}\n{lines[1][:-8]}\n{lines[2]}",
        f"{lines[0]}\n{lines[1].replace('MCow', 'MCox')}\n{lines[2]}",
        b"\xff\xfe",
    ]
    for content in wrong:
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "odd").write_bytes(data)
        with pytest.raises(PackageError, match="is not a public Ed25519 key"):
            signing.read_public_key(tmp_path / "odd")


# ---- signatures


def test_signature_holds_for_one_digest_and_one_key_alone(tmp_path: Path) -> None:
    one, two = signed(tmp_path), signed(tmp_path, "2")
    assert one.holds(DIGEST) and two.holds(DIGEST)
    assert not one.holds(OTHER)
    assert not Signature(two.signer, one.signature).holds(DIGEST)
    bare = signing.read_private_key(tmp_path / "2", passphrase=no_passphrase).sign(DIGEST.encode())
    assert not Signature(two.signer, base64.b64encode(bare).decode()).holds(DIGEST)  # signed as something else


def test_signers_add_to_one_file_until_the_package_is_another(tmp_path: Path) -> None:
    path = tmp_path / "p.tar.gz.sig"
    one, two = signed(tmp_path), signed(tmp_path, "2")
    signing.add_signature(path, DIGEST, one)
    signing.add_signature(path, DIGEST, two)
    signing.add_signature(path, DIGEST, one)
    assert signing.read_signatures(path, DIGEST) == (two, one)
    with pytest.raises(PackageError, match=r"is the signature of another package \(sha256 000000000000, not ffff"):
        signing.read_signatures(path, OTHER)
    again = signed(tmp_path, digest=OTHER)
    signing.add_signature(path, OTHER, again)
    assert signing.read_signatures(path, OTHER) == (again,)


def test_what_is_no_signature_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "package.tar.gz"
    path.write_bytes(b"precious")
    with pytest.raises(PackageError, match="is not a signature file"):
        signing.add_signature(path, DIGEST, signed(tmp_path))
    assert path.read_bytes() == b"precious"


def test_more_than_16_signers_are_refused(tmp_path: Path) -> None:
    for number in range(16):
        signing.add_signature(tmp_path / "p.sig", DIGEST, signed(tmp_path, str(number)))
    with pytest.raises(PackageError, match="already has 16 signatures, the maximum"):
        signing.add_signature(tmp_path / "p.sig", DIGEST, signed(tmp_path, "17"))


def without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda document: document.pop(key)


ODD: dict[str, Callable[[dict[str, Any]], object]] = {
    "no format": without("format"),
    "no package": without("package"),
    "one key more": lambda document: document.update(trusted=True),
    "another version": lambda document: document.update(format="fedpkg package signature v2"),
    "another digest": lambda document: document.update(package="sha1:" + "0" * 40),
    "upper case": lambda document: document.update(package="sha256:" + "F" * 64),
    "package is a list": lambda document: document.update(package=["sha256"]),
    "no list": lambda document: document.update(signatures={}),
    "empty list": lambda document: document.update(signatures=[]),
    "signer twice": lambda document: document.update(signatures=document["signatures"] * 2),
    "17 signers": lambda document: document.update(signatures=document["signatures"] * 17),
    "no object": lambda document: document.update(signatures=["x"]),
    "signature with a key more": lambda document: document["signatures"][0].update(time=1),
    "short signer": lambda document: document["signatures"][0].update(signer="ed25519:AAAA"),
    "signer of another kind": lambda document: document["signatures"][0].update(signer="rsa:AAAA"),
    "signer is no text": lambda document: document["signatures"][0].update(signer=1),
    "short signature": lambda document: document["signatures"][0].update(signature="AAAA"),
    "signature with a newline": lambda document: document["signatures"][0].update(
        signature=document["signatures"][0]["signature"] + "\n"
    ),
    "signature in another spelling": lambda document: document["signatures"][0].update(
        signature=document["signatures"][0]["signature"][:-3] + "/=="
    ),
}


@pytest.mark.parametrize("how", ODD)
def test_signature_file_is_read_strictly(tmp_path: Path, how: str) -> None:
    one = Signature("ed25519:" + base64.b64encode(bytes(32)).decode(), base64.b64encode(bytes(64)).decode())
    document = {"format": signing.FORMAT, "package": f"sha256:{DIGEST}", "signatures": [one.to_json()]}
    path = tmp_path / "p.sig"
    path.write_text(json.dumps(document))
    assert signing.read_signature_file(path) == (DIGEST, (one,))
    ODD[how](document)
    path.write_text(json.dumps(document))
    with pytest.raises(PackageError, match="is not a signature file: "):
        signing.read_signature_file(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'"x"',
        b"1",
        b"[" * 9000,
        b'{"format": 1, "format": 2}',
        b"\xff",
        b"9" * 9000,
        b"NaN",
    ],
)
def test_file_that_is_something_else_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "p.sig").write_bytes(data)
    with pytest.raises(PackageError, match="is not a signature file"):
        signing.read_signature_file(tmp_path / "p.sig")


@given(st.binary(max_size=100), st.integers(0, 300), st.integers(1, 255))
def test_mutated_signature_file_never_holds_for_the_package(noise: bytes, at: int, change: int) -> None:
    one = _KEY.sign(signing.statement(DIGEST))
    signature = Signature(_SIGNER, base64.b64encode(one).decode())
    document = {"format": signing.FORMAT, "package": f"sha256:{DIGEST}", "signatures": [signature.to_json()]}
    data = bytearray(json.dumps(document).encode())
    data[at % len(data)] ^= change
    try:
        document = json.loads(bytes(data) + noise)
        found = signing.read_signature(document["signatures"][0])  # type: ignore[index]
    except (ValueError, LookupError, TypeError):
        return
    assert found == signature or not found.holds(DIGEST)


_KEY = ed25519.Ed25519PrivateKey.generate()
_SIGNER = "ed25519:" + base64.b64encode(_KEY.public_key().public_bytes_raw()).decode()


def test_folder_has_the_digest_of_its_archive(client: Path, tmp_path: Path) -> None:
    built = build_package(client, tmp_path / "p.tar.gz")
    assert package_digest(client) == package_digest(built.path) == built.digest


# ---- policy


def test_list_names_digests_signers_and_key_files(tmp_path: Path) -> None:
    path, signer = key_in(tmp_path)
    listed = resolve_allowed([f"sha256:{DIGEST}", signer, f"{path}.pub"])
    assert listed == [f"sha256:{DIGEST}", signer, signer]
    with pytest.raises(PackageError, match="No such file"):
        resolve_allowed([str(tmp_path / "nobody.pub")])


def test_package_is_admitted_by_its_digest_or_a_signer_and_by_nothing_else(tmp_path: Path) -> None:
    package, (_, signer) = tmp_path / "p.tar.gz", key_in(tmp_path)
    one, two = signed(tmp_path), signed(tmp_path, "2")

    def refusal(allow: list[str]) -> str:
        with pytest.raises(PackageError) as caught:
            admit(DIGEST, package, allow)
        assert f"sha256:{DIGEST}" in str(caught.value.hint)
        return caught.value.message.removeprefix(f"package {package} is not allowed: its digest is not in the list")

    assert admit(DIGEST, package, None) == ()
    assert admit(DIGEST, package, [f"sha256:{DIGEST}"]) == ()
    assert refusal([]) == refusal([f"sha256:{OTHER}"]) == ""
    assert refusal([signer]) == f", and it has no signature file {package}.sig"
    signing.add_signature(signing.signature_path(package), DIGEST, two)
    assert refusal([signer]) == f", nor are its signers: {two.signer}"
    assert refusal([]) == ""
    signing.add_signature(signing.signature_path(package), DIGEST, one)
    assert admit(DIGEST, package, [signer]) == (one,)
    assert admit(DIGEST, package, [signer, two.signer]) == (two, one)
    with pytest.raises(PackageError, match="is the signature of another package"):
        admit(OTHER, package, [signer])
    elsewhere = tmp_path / "elsewhere"
    signing.signature_path(package).rename(elsewhere)
    assert admit(DIGEST, package, [signer], signature=elsewhere) == (one,)
    forged = Signature(signer, two.signature)
    signing.add_signature(signing.signature_path(package), DIGEST, forged)
    assert refusal([signer]) == f", and its signature by {signer} is not valid"


def test_session_that_goes_on_is_checked_by_what_is_on_record(tmp_path: Path) -> None:
    one = signed(tmp_path)
    admit_again(DIGEST, None, [])
    admit_again(DIGEST, [f"sha256:{DIGEST}"], [])
    admit_again(DIGEST, [one.signer], [one.to_json()])
    for allow, recorded in (([one.signer], []), ([], [one.to_json()]), ([f"sha256:{OTHER}"], [one.to_json()])):
        with pytest.raises(PackageError, match="the session's package is not allowed: no recorded signature"):
            admit_again(DIGEST, allow, recorded)
    with pytest.raises(PackageError, match="no recorded signature"):
        admit_again(OTHER, [one.signer], [one.to_json()])
    with pytest.raises(PackageError, match="a recorded signature is damaged"):
        admit_again(DIGEST, [one.signer], [{"signer": one.signer, "signature": "x"}])


# ---- the library that is not always there


def test_without_cryptography_the_error_says_what_to_install_and_digests_still_do(tmp_path: Path) -> None:
    one = signed(tmp_path)
    script = f"""
import sys
sys.modules["cryptography"] = None
from pathlib import Path
from fedpkg.compute_package import signing, trust
from fedpkg.errors import PackageError
print(trust.resolve_allowed([{str(tmp_path / "Schlüssel 1.pub")!r}]) == [{one.signer!r}])
trust.admit("{DIGEST}", Path("p"), ["sha256:{DIGEST}"])
for call in (
    lambda: signing.make_key(Path("k")),
    lambda: signing.read_private_key(Path("k"), passphrase=input),
    lambda: trust.admit_again("{DIGEST}", [{one.signer!r}], [{one.to_json()}]),
):
    try:
        call()
    except PackageError as error:
        print(error.message, error.hint, sep=": ")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    need = "needs the library cryptography, which is not installed here: pip install 'fedpkg[sign]'"
    assert done.stdout.splitlines() == [
        "True",
        f"making a key {need}",
        f"signing {need}",
        f"checking a signature {need}",
    ]
