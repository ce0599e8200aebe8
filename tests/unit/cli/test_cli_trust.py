"""Signing and verifying by hand; runs and calls that take only what they allow; a cache that somebody changed."""

import os
import shutil

import pytest
from cli_support import MISBEHAVE, fedpkg, write_run_yaml

from fedpkg.means import means


@pytest.fixture
def package(here):
    """An archive, signed by alice; bob has a key, too."""
    for name in ("alice", "bob"):
        assert fedpkg("package", "keygen", name).code == 0
    assert fedpkg("package", "build", MISBEHAVE, "-o", "mein paket.tar.gz").code == 0
    ended = fedpkg("package", "sign", "mein paket.tar.gz", "--key", "alice", "--json")
    assert ended.code == 0, ended.err
    return here / "mein paket.tar.gz"


def signer(name):
    return fedpkg("package", "verify", "mein paket.tar.gz", "--signer", f"{name}.pub", "--json").json()["signers"][0]


def test_signature_is_verified_with_and_without_a_signer(package):
    assert fedpkg("package", "verify", package).code == 0
    assert fedpkg("package", "verify", package, "--signer", "alice.pub").code == 0
    assert fedpkg("package", "verify", package, "--signer", signer("alice")).code == 0
    ended = fedpkg("package", "verify", package, "--signer", "bob.pub")
    assert (ended.code, ended.out) == (4, "")
    assert "has no signature of ed25519:" in ended.err
    with open(package, "ab") as file:
        file.write(b"\0")
    ended = fedpkg("package", "verify", package)
    assert ended.code == 4
    assert "is the signature of another package" in ended.err


def test_forged_signature_is_refused_and_shown_as_such(package, here):
    fedpkg("package", "sign", package, "--key", "bob", "-o", "bob.sig")
    path = package.with_name(f"{package.name}.sig")
    line = '"signature": "'
    ours, theirs = (text.split(line)[1].split('"')[0] for text in (path.read_text(), (here / "bob.sig").read_text()))
    path.write_text(path.read_text().replace(ours, theirs))
    ended = fedpkg("package", "verify", package)
    assert ended.code == 4
    assert "is not genuine" in ended.err
    assert fedpkg("package", "inspect", package, "--json").json()["signers"][0]["says"] == "NOT GENUINE"


def test_inspect_shows_digest_and_signers(package):
    fedpkg("package", "sign", package, "--key", "bob")
    document = fedpkg("package", "inspect", package, "--json").json()
    assert document["signers"] == [{"signer": signer(name), "says": "genuine"} for name in ("alice", "bob")]
    assert f"signed by   {signer('alice')}  (genuine)\n" in fedpkg("package", "inspect", package).out
    package.with_name(f"{package.name}.sig").write_text("{}")
    ended = fedpkg("package", "inspect", package, "--json")
    assert (ended.code, ended.json()["signers"]) == (0, [])
    assert "warning: " in ended.err and "is not a signature file" in ended.err


def test_folder_is_signed_as_the_archive_that_is_built_of_it(package, here):
    shutil.copytree(MISBEHAVE, here / "misbehave")
    assert fedpkg("package", "sign", "misbehave/", "--key", "bob").code == 0
    assert fedpkg("package", "verify", package, "--signature", "misbehave.sig", "--signer", "bob.pub").code == 0
    (here / "misbehave" / "more.txt").touch()
    assert "of another package" in fedpkg("package", "verify", "misbehave").err


def test_key_that_others_can_read_is_warned_of(package):
    os.chmod("alice", 0o644)
    ended = fedpkg("package", "sign", package, "--key", "alice")
    assert (ended.code, ended.err) == (0, "warning: others may read alice; chmod 600 alice\n")


def test_run_takes_only_what_it_allows_and_keeps_who_signed(package, here):
    digest = fedpkg("package", "inspect", package, "--json").json()["digest"]
    os.mkdir("where the run is")
    run_yaml = write_run_yaml(
        here / "where the run is", package=str(package), trust={"allow": ["../alice.pub"]}, rounds=1
    )
    for allow in ("[]", "[bob.pub]", f"[sha256:{'0' * 64}]"):
        ended = fedpkg("run", run_yaml, f"trust.allow={allow}")
        assert ended.code == 4, ended.err
        assert f"error: package {package} is not allowed: its digest is not in the list" in ended.err
        assert fedpkg("session", "list", "--json").json() == []
        assert os.listdir(".fedpkg/packages") == []  # not even unpacked
    assert fedpkg("run", run_yaml, f"trust.allow=[sha256:{digest}]").code == 0
    os.rename("mein paket.tar.gz.sig", "elsewhere")
    assert "it has no signature" in fedpkg("run", run_yaml).err
    assert fedpkg("run", run_yaml, "trust.signature=elsewhere").code == 0
    os.rename("elsewhere", "mein paket.tar.gz.sig")
    assert f"signed by   {signer('alice')}\n" in fedpkg("session", "show").out


def test_run_without_a_run_yaml_takes_only_what_it_allows(package, here):
    for allow in ("[]", "[bob.pub]"):
        ended = fedpkg("run", "--package", package, f"trust.allow={allow}")
        assert ended.code == 4
        assert "is not allowed: its digest is not in the list" in ended.err
        assert os.listdir(".fedpkg/packages") == []
    ended = fedpkg("run", "--package", package, "--rounds", "1", "trust.allow=[alice.pub]", "executor.name=process")
    assert ended.code == 0, ended.err
    assert ended.err.count("--isolate") == (means().cold is not None)  # an archive may be somebody else's
    assert f"signed by   {signer('alice')}\n" in fedpkg("session", "show").out


def test_resume_goes_by_the_record_and_not_by_files_that_changed_since(package, here):
    run_yaml = write_run_yaml(here, package=str(package), trust={"allow": ["alice.pub"]}, rounds=1)
    assert fedpkg("run", run_yaml).code == 0
    os.rename("bob.pub", "alice.pub")
    os.remove("mein paket.tar.gz.sig")
    os.remove(package)
    ended = fedpkg("session", "resume", "--rounds", "2")
    assert ended.code == 0, ended.err


def test_resume_mends_a_changed_package_from_its_archive_and_refuses_it_without(package, here):
    run_yaml = write_run_yaml(here, package=str(package), rounds=1)
    assert fedpkg("run", run_yaml).code == 0
    digest = fedpkg("package", "inspect", package, "--json").json()["digest"]
    script = here / ".fedpkg" / "packages" / digest / "files" / MISBEHAVE.name / "entrypoint.py"
    content = script.read_bytes()
    script.chmod(0o644)
    script.write_bytes(b"#" * len(content))
    os.rename(package, "elsewhere")
    ended = fedpkg("session", "resume", "--rounds", "2")
    assert ended.code == 4
    assert "was changed after it was unpacked: 'misbehave/entrypoint.py' was changed" in ended.err
    os.rename("elsewhere", package)
    assert fedpkg("session", "resume", "--rounds", "2").code == 0
    assert script.read_bytes() == content


def test_call_takes_only_what_it_allows(package, here):
    ended = fedpkg("package", "call", package, "build", "--allow", "bob.pub", "--output", "seed.npz")
    assert ended.code == 4
    assert "is not allowed" in ended.err
    assert not (here / "seed.npz").exists()
    assert fedpkg("package", "call", package, "build", "--allow", "bob.pub", "--allow", "alice.pub").code == 0


@pytest.mark.parametrize("entry", ["sha256:12", "ed25519:AAAA", "''", "sha256:" + "F" * 64])
def test_odd_entry_of_the_list_is_a_configuration_error(here, entry):
    run_yaml = write_run_yaml(here)
    ended = fedpkg("run", run_yaml, f"trust.allow=[{entry}]")
    assert ended.code == 3
    assert "'trust.allow' must be a list of sha256:<64 hexadecimal digits>" in ended.err
