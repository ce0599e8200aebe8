"""What the server answers, byte for byte: to whom, and to requests that try to get more than pages."""

from __future__ import annotations

import csv
import http.client
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import pytest
from addresses import addresses, session_ids
from served import Answer, Served, served

from tests.unit.cli.cli_support import fedpkg

REFUSED = {
    # The host: a name that leads here (DNS rebinding), or none.
    "host of another name": (421, {"Host": "evil.example"}),
    "host of another name and our port": (421, {"Host": "evil.example:{port}"}),
    "host that begins like ours": (421, {"Host": "127.0.0.1.evil.example"}),
    "host that ends like ours": (421, {"Host": "evil.localhost"}),
    "host with a user": (421, {"Host": "127.0.0.1@evil.example"}),
    "host of the network": (421, {"Host": "192.168.1.7:{port}"}),
    "host of all addresses": (421, {"Host": "0.0.0.0:{port}"}),
    "host with a port of letters": (421, {"Host": "127.0.0.1:evil"}),
    "empty host": (421, {"Host": ""}),
    "address of IPv6 that is another's": (421, {"Host": "[2001:db8::1]:{port}"}),
    # The origin: a page of another site.
    "origin of another site": (403, {"Origin": "http://evil.example"}),
    "origin without a site": (403, {"Origin": "null"}),
    "origin of another port": (403, {"Origin": "http://127.0.0.1:1"}),
    "origin over TLS": (403, {"Origin": "https://127.0.0.1:{port}"}),
    "script of another site": (403, {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"}),
    "frame of a site beside": (403, {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "cors"}),
    # The token.
    "no token": (401, {}),
    "token of another server": (401, {"Authorization": "Bearer AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}),
    "empty token": (401, {"Authorization": "Bearer "}),
    "token without a scheme": (401, {"Authorization": "{viewer}"}),
    "token as a password": (401, {"Authorization": "Basic {viewer}"}),
    "beginning of a token": (401, {"Authorization": "Bearer {start}"}),
    "token of odd letters": (401, {"Authorization": "Bearer \u00ff\u00fe"}),
    "cookie with the token itself": (401, {"Cookie": "{name}={viewer}"}),
    "cookie of another name": (401, {"Cookie": "fedpkg={value}"}),
    "cookie of another value": (401, {"Cookie": "{name}=00000000"}),
    "empty cookie": (401, {"Cookie": "{name}="}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_request_that_is_not_of_a_reader_is_refused(server: Served, case: str) -> None:
    status, headers = REFUSED[case]
    name, _, value = server.cookie(server.viewer).partition("=")
    known = {"port": server.port, "viewer": server.viewer, "start": server.viewer[:16], "name": name, "value": value}
    given = {key: text.format_map(known) for key, text in headers.items()}
    is_about_tokens = status == 401
    for path in ("/", "/api/v1/sessions", f"/sessions/{session_ids(server.home)['finished']}"):
        answer = server.ask(path, token=None if is_about_tokens else "", **given)
        assert answer.status == status, answer.text
        check_safe(server, answer)
        assert server.viewer not in answer.text


# Parts of addresses, each in every place where an address has a variable part.
TRICKS = [
    "..", "../..", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e%2f%2e%2e%2fstate.db", "....//....//etc/passwd",
    "..%5c..%5cwindows", "%252e%252e%252fetc", "/etc/passwd", "//etc/passwd", "%2Fetc%2Fpasswd", "file:///etc/passwd",
    "state.db", "../state.db", "lock.json", ".", "%00", "a%00.npz", "%0d%0aSet-Cookie:%20a=b", "%ff%fe", "%C0%AE%C0%AE",
    "~", "~root", "-1", "0x10", "1e9", "99999999999999999999", "NaN", "%D9%A1", "*", "%", "%%",
    "' or '1'='1", "%27%20or%201=1--", "{{7*7777}}", "${7*7777}",
    "%7B%7B7*7777%7D%7D", "<script>", "%3Cscript%3E", "a" * 3000,
]  # fmt: skip
PLACES = [
    "/sessions/{}", "/sessions/{}/rounds", "/sessions/{session}/rounds/{}", "/sessions/{session}/clients/{}",
    "/clients/{}", "/tasks/{}", "/models/{}", "/sweeps/{}", "/compare?session={}", "/static/{}/page.css",
    "/static/v/{}", "/?search={}", "/?sessions.sort={}", "/?sessions.page={}", "/?state={}", "/?download={}",
    "/sessions/{session}?rounds.page={}&rounds.sort={}", "/sessions/{session}?download={}.csv",
    "/sessions/{session}/clients?search={}&state={}", "/sessions/{session}/failures?kind={}&client={}",
    "/api/v1/models/{}/file", "/api/v1/models/{session}/file?form={}", "/api/v1/tasks/{}/log?name={}", "/{}",
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_no_part_of_an_address_leads_out_of_the_home(server: Served, place: str) -> None:
    session = session_ids(server.home)["finished"]
    for trick in TRICKS:
        path = place.replace("{session}", session).replace("{}", trick.replace(" ", "%20"))
        answer = server.ask(path)
        assert answer.status in (200, 303, 400, 404), f"{path}: {answer.status}"
        check_safe(server, answer)
        assert b"root:" not in answer.body and not answer.body.startswith(b"SQLite format 3"), path
        is_page = "html" in answer.headers["Content-Type"]
        assert not is_page or "<script>" not in answer.text, path
        assert "54439" not in answer.text, path
        assert "a=b" not in str(answer.headers), path


def check_safe(server: Served, answer: Answer) -> None:
    """What every answer has, and what none has."""
    headers = {name.lower(): value for name, value in answer.headers.items()}
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "unsafe-inline" not in policy or "sandbox" in policy
    assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
    assert "access-control-allow-origin" not in headers and "server" not in headers
    assert answer.status == 304 or headers["cache-control"].startswith(("no-store", "private", "no-cache"))
    if answer.status >= 400:
        assert "Traceback" not in answer.text and ".py" not in answer.text
        assert str(Path.home()) not in answer.text.replace(str(server.home), "") or len(str(Path.home())) < 3


FORGED = {
    "without a token": (401, "none", {}),
    "of a reader with a token": (403, "viewer", {}),
    "of a reader with a cookie": (403, "viewer cookie", {"Origin": "{base}"}),
    "of an operator from another site": (403, "cookie", {"Origin": "http://evil.example"}),
    "of an operator without an origin": (403, "cookie", {}),
    "of an operator with the origin null": (403, "cookie", {"Origin": "null"}),
    "of an operator without a form": (403, "cookie", {"Origin": "{base}"}),
    "of an operator with another form": (403, "cookie form", {"Origin": "{base}"}),
    "of an operator with the form of a reader": (403, "cookie reader's form", {"Origin": "{base}"}),
    "that is too large": (413, "cookie large", {"Origin": "{base}"}),
}


@pytest.mark.parametrize("case", FORGED)
@pytest.mark.parametrize("action", ["stop", "resume"])
def test_a_forged_action_does_nothing(server: Served, case: str, action: str) -> None:
    status, who, headers = FORGED[case]
    session = session_ids(server.home)["killed"]
    given = {name: value.format(base=server.base) for name, value in headers.items()}
    token = server.viewer if who == "viewer" else None
    assert server.operator is not None
    if "cookie" in who:
        given["Cookie"] = server.cookie(server.viewer if "viewer" in who else server.operator)
        given["Content_Type"] = "application/x-www-form-urlencoded"
    form = {"cookie form": "csrf=0000", "cookie reader's form": f"csrf={csrf(server)}", "cookie large": "a" * 100_000}
    answer = server.ask(f"/sessions/{session}/{action}", method="POST", token=token, body=form.get(who, ""), **given)
    assert answer.status == status, answer.text
    check_safe(server, answer)


def csrf(server: Served) -> str:
    """The word in the forms of a reader."""
    return server.ask("/").text.partition('name="csrf" value="')[2].partition('"')[0]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "POST"])
def test_other_methods_are_refused(server: Served, method: str) -> None:
    answer = server.ask("/sessions", method=method, token=server.operator)
    assert answer.status in (400, 403, 404, 405), answer.text


def test_a_token_becomes_a_cookie_and_leaves_the_address(server: Served) -> None:
    entered = server.ask(f"/sweeps?metric=a%26b&token={server.viewer}", token=None)
    assert (entered.status, entered.headers["Location"]) == (303, "/sweeps?metric=a%26b")
    cookie = entered.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and server.viewer not in cookie
    assert server.ask("/", token=None, Cookie=cookie.partition(";")[0]).status == 200
    outside = server.ask(f"//evil.example/?token={server.viewer}", token=None)
    assert outside.status != 303 or outside.headers["Location"].startswith("/evil.example")
    linked = server.ask(f"/?token={server.viewer}", token=None, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")
    assert (linked.status, linked.headers["Refresh"]) == (200, "0; url=/"), "a browser would not send a strict cookie"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.1:9999", "[::1]:80", "LOCALHOST:1"])
def test_a_forwarded_port_is_another_one(server: Served, host: str) -> None:
    assert server.ask("/", Host=host).status == 200
    assert server.ask("/", Host=host, Origin=f"http://{host}").status == 200


def test_read_only_refuses_every_action(server: Served) -> None:
    with served(server.home, "--read-only") as other:
        assert other.operator is None
        session = session_ids(server.home)["killed"]
        answer = other.ask(f"/sessions/{session}/resume", method="POST")
        assert answer.status == 403 and "read-only" in answer.text
        assert "Resume the session" not in other.ask(f"/sessions/{session}").text


def test_every_page_is_whole_without_scripts(server: Served) -> None:
    for path in addresses(server.home, "finished", "failing", "hostile", "private", "killed"):
        answer = server.ask(path)
        assert answer.status == 200, f"{path}: {answer.text}"
        check_safe(server, answer)
        assert "onerror=window" not in answer.text.replace("&lt;img src=x onerror=window", "")
        assert "\x1b" not in answer.text and "\u202e" not in answer.text, path


def test_what_a_reader_looks_for_is_where_they_look(server: Served) -> None:
    known = session_ids(server.home)
    for path in ("", "/rounds/3", "/failures", "/clients/client-0"):
        text = server.ask(f"/sessions/{known['failing']}{path}").text
        assert "its log ends with: ValueError: expected 784 features, got 785" in text, path
    assert "No task failed." in server.ask(f"/sessions/{known['failing']}/rounds/2").text
    assert "Privacy spent: epsilon 7.077, delta 1e\u221205" in server.ask(f"/sessions/{known['private']}").text
    resume = f"fedpkg session resume {known['killed']} --home home"
    assert resume in server.ask(f"/sessions/{known['killed']}").text


def test_every_table_and_plot_is_a_file(server: Served) -> None:
    links: set[str] = set()
    for path in addresses(server.home, "hostile"):
        links |= {unescape(link) for link in re.findall(r'href="([^"]*[?&]download=[^"]*)"', server.ask(path).text)}
    assert len(links) > 40
    pictures = sorted(link for link in links if link.endswith(".png"))
    for link in sorted(links - {*pictures[1:]}):
        file = server.ask(link)
        assert file.status == 200, f"{link}: {file.text}"
        assert file.headers["Content-Disposition"].startswith("attachment;")
        check_safe(server, file)
        if link.endswith(".json"):
            assert isinstance(json.loads(file.body), list)
        elif link.endswith(".svg"):
            root = ElementTree.fromstring(file.body)
            assert not [one for one in root.iter() if one.tag.rpartition("}")[2] in ("script", "img", "image")]
        elif link.endswith(".png"):
            assert file.body.startswith(b"\x89PNG")
        else:
            assert not [cell for row in csv.reader(file.text.splitlines()) for cell in row if cell[:1] in ("=", "@")]


def test_what_is_damaged_is_a_note_on_its_page(server: Served, tmp_path: Path) -> None:
    """Rows of every kind that a page reads, and files: in a copy of the home."""
    home = tmp_path / "home"
    shutil.copytree(server.home, home, symlinks=True)
    session = session_ids(home)["finished"]
    paths = [path for path in addresses(home, "finished") if "/clients/" not in path]
    damage = {
        "rounds": ("phases", "round_number = 2"),
        "tasks": ("phases", "round_number = 1"),
        "models": ("contributors", "round_number = 1"),
        "validations": ("metrics", "round_number = 2"),
    }
    with closing(sqlite3.connect(home / "state.db")) as database:
        for table, (column, where) in damage.items():
            database.execute(f"update {table} set {column} = '{{broken' where session_id = ? and {where}", [session])
        database.commit()
    for file in (home / "models").rglob("*.npz"):
        file.unlink()
    shutil.rmtree(home / "sessions" / session)
    shutil.rmtree(home / "packages")
    with served(home) as other:
        for path in paths:
            answer = other.ask(path)
            assert answer.status in (200, 404), f"{path}: {answer.text}"
            check_safe(other, answer)
        notes = other.ask(f"/sessions/{session}/rounds").text
    assert 'class="note"' in notes and "round" in notes
    with closing(sqlite3.connect(home / "state.db")) as database:
        database.execute("update sessions set config = '{broken' where session_id = ?", [session])
        database.commit()
    with served(home) as other:
        told = f"the configuration of {session} cannot be read"
        compared = f"/compare?session={session}&session={session_ids(home)['killed']}"
        assert told in other.ask(f"/sessions/{session}").text and other.ask(compared).status == 200
        for path in paths:
            assert other.ask(path).status in (200, 404), path


def test_a_home_without_a_store_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    with served(tmp_path / "home") as other:
        answer = other.ask("/")
    assert answer.status == 200 and "fedpkg run RUN.yaml" in answer.text


def test_ctrl_c_ends_it_while_a_page_listens(server: Served) -> None:
    with served(server.home) as other:
        connection = http.client.HTTPConnection("127.0.0.1", other.port, timeout=60)
        headers = {"Authorization": f"Bearer {other.viewer}", "Accept": "text/event-stream"}
        connection.request("GET", "/", headers=headers)
        assert connection.getresponse().readline() == b"retry: 1000\n"
        os.kill(other.process.pid, signal.SIGINT)
        assert other.process.wait(60) == 0
        connection.close()


def test_the_command_refuses_what_others_could_reach(server: Served) -> None:
    for words, told in ((["--host", "0.0.0.0"], "ssh -L"), (["--port", str(server.port)], "another --port")):
        ended = fedpkg("dashboard", "--home", server.home, "--no-open", *words)
        assert ended.code == 3 and told in ended.err, ended.err


def test_the_command_says_what_is_not_installed(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedpkg.cli.dashboard.find_spec", lambda name: None)
    ended = fedpkg("dashboard", "--home", server.home)
    assert ended.code == 3 and 'pip install "fedpkg[dashboard]"' in ended.err


_ADDRESS = "fedpkg.cli.main, fedpkg.cli.dashboard, fedpkg.dashboard.tokens"


@pytest.mark.parametrize(
    ("before", "absent"),
    [
        pytest.param(_ADDRESS, {"torch", "numpy", "plotly", "aiohttp", "jinja2", "matplotlib"}, id="address"),
        pytest.param(
            "fedpkg.dashboard.server",
            {
                "torch",
                "numpy",
                "plotly",
                "matplotlib",
                "yaml",
                "fedpkg.strategies",
                "fedpkg.client",
                "fedpkg.data.entities",
            },
            id="first page",
        ),
    ],
)
def test_what_is_imported_before_the_answer(before: str, absent: set[str]) -> None:
    probe = f"import sys, {before}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert not absent & {*ran.stdout.split()}


def test_a_request_that_is_no_http_is_refused_in_silence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with served(tmp_path) as server:
        for sent in (b"GET / HTTP/1.1", b"GET / HTTP/1.1\r\nHost: x\r\nHost: y", b"GET http://[/ HTTP/1.1\r\nHost: x"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
                connection.sendall(sent + b"\r\n\r\n")
                assert connection.recv(100).startswith(b"HTTP/1.0 400 "), sent
    assert "Traceback" not in capfd.readouterr().err
