"""pgAdmin as people meet it: they log in, see the servers, and connect to one of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from shlex import quote
from typing import Any

PASSWORD = 'pgadmin-password-"\\$x'
# A browser, as far as it matters: it keeps cookies that are for HTTPS only, as if nginx were there.
BROWSER = r"""
import json, re, sys, urllib.error, urllib.parse, urllib.request
base, email, password, server, database_password = sys.argv[1:]
cookies, seen = {}, {}

class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None

opener = urllib.request.build_opener(Stay)

def ask(path, form=None, body=None, token=""):
    headers = {"Cookie": "; ".join(f"{k}={v}" for k, v in cookies.items()),
               "X-Forwarded-Proto": "https", "X-Forwarded-For": "10.9.9.9",
               "Referer": base.replace("http:", "https:") + "/"}
    data = None
    if form is not None:
        data = urllib.parse.urlencode(form).encode()
    if body is not None:
        data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
    if token:
        headers["X-pgA-CSRFToken"] = token
    request = urllib.request.Request(base + path, data, headers)
    try:
        answer = opener.open(request, timeout=30)
    except urllib.error.HTTPError as error:
        answer = error
    for line in answer.headers.get_all("Set-Cookie") or []:
        seen.setdefault("cookies", []).append(line.split("=")[0] + line.partition(";")[2])
        name, _, value = line.split(";")[0].partition("=")
        cookies[name] = value
    return answer.status, answer.headers.get("Location", ""), answer.read().decode()

status, _, page = ask("/login")
seen["login"] = status
token = re.search(r'csrfToken[^A-Za-z0-9]+([A-Za-z0-9._-]{20,})', page)
token = token or re.search(r'csrf_token"[^>]*value="([^"]+)"', page)
form = {"email": email, "password": password, "csrf_token": token[1], "language": "en",
        "internal_button": "Login"}
status, seen["location"], _ = ask("/authenticate/login", form)
status, where, page = ask("/browser/")
seen["browser"] = status
if status == 200:
    script = ask("/browser/js/utils.js")[2]
    token = re.search(r"csrf_token'?\]? ?=? ?[:=]? ?['\"]([A-Za-z0-9._-]{20,})", script)[1]
    groups = json.loads(ask("/browser/server_group/nodes/", token=token)[2])["data"]
    seen["servers"] = {}
    for group in groups:
        found = json.loads(ask(f"/browser/server/nodes/{group['_id']}/", token=token)[2])["result"]
        for each in found:
            seen["servers"][each["label"]] = (group["_id"], each["_id"])
    if server:
        group, number = seen["servers"][server]
        status, _, text = ask(f"/browser/server/connect/{group}/{number}",
                              body={"password": database_password}, token=token)
        seen["connect"] = (status, text)
        text = ask(f"/browser/database/nodes/{group}/{number}/", token=token)[2]
        seen["databases"] = text
print(json.dumps(seen))
"""


def browse(
    host: Any,
    password: str = PASSWORD,
    server: str = "",
    database_password: str = "",
    base: str = "http://127.0.0.1:5050/pgadmin",
) -> dict[str, Any]:
    arguments = [base, "admin@example.com", password, server, database_password]
    done = host.check_output(f"python3 -c {quote(BROWSER)} {' '.join(map(quote, arguments))}")
    return dict(json.loads(done))


def eventually(ask: Callable[[], bool], seconds: float = 180) -> bool:
    until = time.monotonic() + seconds
    while not ask():
        if time.monotonic() > until:
            return False
        time.sleep(0.5)
    return True


def pings(host: Any) -> bool:
    url = "http://127.0.0.1:5050/pgadmin/misc/ping"
    done = host.run(f"python3 -c {quote(FETCH)} {url}")
    return bool(done.stdout.strip() == "PING")


FETCH = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=30).read().decode())"


def pid(host: Any) -> str:
    return str(host.check_output("systemctl show -P MainPID pgadmin"))


def test_it_answers_probes(host: Any) -> None:
    assert pings(host)


def test_one_logs_in_and_connects_to_a_database(host: Any) -> None:
    seen = browse(host, server="main", database_password="sales-password")
    assert (seen["login"], seen["browser"]) == (200, 200), seen
    assert list(seen["servers"]) == ["main"]
    status, text = seen["connect"]
    assert status == 200 and '"connected": true' in text.replace('":true', '": true'), text
    assert "prod-sales" in seen["databases"]


def test_cookies_are_for_its_path_and_https(host: Any) -> None:
    session = [line for line in browse(host)["cookies"] if line.startswith("pga4_session")]
    assert session
    assert all("Path=/pgadmin" in line and "Secure" in line for line in session), session
    assert all("HttpOnly" in line for line in session)


def test_a_wrong_password_of_the_database_is_refused(host: Any) -> None:
    status, text = browse(host, server="main", database_password="wrong")["connect"]
    assert status != 200 or '"connected"' not in text, text


def test_a_wrong_password_is_refused(host: Any) -> None:
    seen = browse(host, password="wrong-password")
    assert "servers" not in seen and seen["browser"] != 200, seen


def test_it_listens_where_it_should(host: Any) -> None:
    lines = host.check_output("ss -Hltn").splitlines()
    listening = {line.split()[3] for line in lines}
    assert {each for each in listening if each.endswith(":5050")} == {"127.0.0.1:5050"}


def test_limits_are_those_of_the_process(host: Any) -> None:
    assert host.check_output(f"ps -o user= -p {pid(host)}") == "pgadmin"
    assert "4096" in host.check_output(f"grep 'open files' /proc/{pid(host)}/limits")
    assert host.check_output("systemctl show -P MemoryMax pgadmin") == str(1024**3)


def test_secrets_are_for_root_only(host: Any) -> None:
    file = host.file("/etc/pgadmin/account.json")
    assert (file.mode, file.user, file.group) == (0o600, "root", "root")
    assert host.file("/var/lib/pgadmin").mode == 0o700
    assert host.file("/var/lib/pgadmin/pgadmin4.db").mode == 0o600
    assert "pgadmin-password" not in host.check_output("journalctl --no-pager -b")
    found = host.run("grep -rl 'pgadmin-[p]assword' /etc /var/lib/pgadmin /var/cache/pgadmin")
    assert found.stdout.split() == ["/etc/pgadmin/account.json"]
    found = host.run("grep -rl 'sales-[p]assword' /etc/pgadmin /var/lib/pgadmin")
    assert found.stdout == ""
    environ = host.check_output(f"cat /proc/{pid(host)}/environ | tr '\\0' '\\n'")
    assert "pgadmin-password" not in environ


def test_it_is_there_again_after_a_crash(host: Any) -> None:
    before = pid(host)
    host.check_output(f"kill -9 {before}")
    assert eventually(lambda: pings(host))
    assert pid(host) != before


# --- what changes later ---------------------------------------------------------------------------


def test_bad_input_is_told_at_once(host: Any, converge: Any) -> None:
    before = pid(host)
    done = converge(pgadmin_admin_password="short", pgadmin_path="pgadmin/")
    assert done.returncode != 0
    folded = " ".join(done.stdout.split())
    assert "pgadmin_admin_password has less than 8" in folded, done.stdout
    assert "pgadmin_path 'pgadmin/'" in folded
    assert pid(host) == before


def test_password_path_and_servers_change_as_predicted(host: Any, converge: Any) -> None:
    before = pid(host)
    changed: dict[str, Any] = {
        "pgadmin_admin_password": "another-password",
        "pgadmin_path": "/db",
        "pgadmin_servers": [{"name": "second", "host": "127.0.0.1", "user": "sales"}],
    }
    for arguments in (["--check"], []):
        done = converge("--diff", *arguments, **changed)
        assert done.returncode == 0, done.stdout
        assert "changed=2" in done.stdout, done.stdout
        assert "another-password" not in done.stdout
        assert (pid(host) == before) == bool(arguments)
    base = "http://127.0.0.1:5050/db"
    seen = browse(host, password="another-password", base=base)
    assert list(seen["servers"]) == ["second"], seen
    assert "servers" not in browse(host, base=base), "the old password is refused"
    again = converge(**changed)
    assert "changed=0" in again.stdout, again.stdout
