"""What applications under PM2 come to, and what has to change."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils import pm2

API: dict[str, Any] = {"name": "api", "user": "shop", "cwd": "/srv/api", "script": "server.js"}


def layout(*apps: dict[str, Any], users: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return pm2.layout(list(apps) or [API], users or [])


def file(found: dict[str, Any], path: str) -> dict[str, Any]:
    return dict(next(each for each in found["files"] if each["path"] == path))


def entry(**values: Any) -> dict[str, Any]:
    found = layout({**API, **values})
    content = file(found, "/etc/berth/pm2/shop/ecosystem.json")["content"]
    return dict(json.loads(content)["apps"][0])


def digest(**values: Any) -> str:
    return str(layout({**API, **values})["apps"][0]["hash"])


class TestEcosystem:
    def test_a_script_is_run_by_node_from_its_directory(self) -> None:
        app = entry(args=["two words"], node_args=["--inspect"])
        assert (app["script"], app["interpreter"]) == ("/srv/api/server.js", "node")
        assert app["args"] == ["two words"]
        assert app["node_args"] == ["--require=/usr/local/lib/berth/pm2/secrets.js", "--inspect"]
        assert (app["exec_mode"], app["instances"], app["merge_logs"]) == ("fork", 1, True)

    def test_pm2_gives_up_on_readiness_later_than_the_module(self) -> None:
        assert entry(listen_timeout=4000)["listen_timeout"] > 4000

    def test_a_command_is_split_but_never_expanded(self) -> None:
        app = entry(script=None, command="./run 'two words' $HOME")
        assert (app["script"], app["interpreter"]) == ("/srv/api/run", "none")
        assert app["args"] == ["two words", "$HOME"]

    def test_secrets_of_another_language_go_through_a_program(self) -> None:
        app = entry(interpreter="/usr/bin/python3", script="x.py", secret_env={"A": "b"})
        assert app["args"][1].endswith("/with_secrets.py")
        assert app["args"][2:] == ["/usr/bin/python3", "/srv/api/x.py"]
        plain = entry(interpreter="/usr/bin/python3", script="x.py")
        assert (plain["script"], plain["interpreter"]) == ("/srv/api/x.py", "/usr/bin/python3")

    def test_secrets_are_in_their_file_alone(self) -> None:
        found = layout({**API, "secret_env": {"KEY": "canary"}})
        holding = [each for each in found["files"] if "canary" in each.get("content", "")]
        assert [each["path"] for each in holding] == ["/etc/berth/pm2/shop/secrets-api.json"]
        assert (holding[0]["mode"], holding[0]["owner"]) == ("0400", "shop")
        assert holding[0]["secret"] is True
        assert "canary" not in json.dumps(found["apps"])


class TestHash:
    @pytest.mark.parametrize(
        "values",
        [{"env": {"A": "1"}}, {"secret_env": {"A": "1"}}, {"args": ["x"]}, {"cwd": "/srv/other"}],
        ids=["env", "secret", "args", "cwd"],
    )
    def test_changes_with(self, values: dict[str, Any]) -> None:
        assert digest(**values) != digest()

    def test_of_one_application_does_not_depend_on_another(self) -> None:
        both = layout(API, {**API, "name": "other", "env": {"A": "1"}})
        assert both["apps"][0]["hash"] == digest()

    def test_is_what_the_process_is_given(self) -> None:
        assert entry()["env"][pm2.HASH] == digest()


class TestFaults:
    @pytest.mark.parametrize(
        ("values", "words"),
        [
            ({"name": "1"}, "name: '1'"),
            ({"name": "all"}, "not all"),
            ({"user": "root"}, "other than root"),
            ({"cwd": "srv"}, "cwd: 'srv': an absolute path"),
            ({"script": None}, "either script or command"),
            ({"command": "/bin/true"}, "either script or command"),
            ({"script": None, "command": "node x"}, "the program needs a path"),
            ({"script": None, "command": "/bin/x 'y"}, "cannot be split"),
            ({"exec_mode": "cluster", "interpreter": "none"}, "cluster is for a script"),
            ({"instances": 0}, "instances: 0: a whole number"),
            ({"instances": "max"}, "'max'"),
            ({"max_memory_restart": "lots"}, "'lots': an amount such as 300M"),
            ({"ports": [70000]}, "70000 is no port"),
            ({"out_file": "/var/log/a b"}, "without blanks"),
            ({"env": {"A-B": "x"}}, "'A-B' is no name"),
            ({"env": {"A": "x"}, "secret_env": {"A": "canary"}}, "A is in env and in secret_env"),
            ({"secret_env": {"A": ["canary"]}}, "secret_env.A: text or a number"),
        ],
    )
    def test_names_key_and_value(self, values: dict[str, Any], words: str) -> None:
        with pytest.raises(pm2.Pm2Error) as error:
            layout({**API, **values})
        assert words in str(error.value)
        assert "pm2_apps[0]" in str(error.value)
        assert "canary" not in str(error.value)

    def test_all_are_told_together(self) -> None:
        with pytest.raises(pm2.Pm2Error) as error:
            layout({**API, "cwd": "x"}, {**API, "instances": 0})
        assert len(error.value.faults) == 3

    def test_of_users(self) -> None:
        with pytest.raises(pm2.Pm2Error, match="memory"):
            layout(users=[{"name": "shop", "limits": {"memory": "lots"}}])
        with pytest.raises(pm2.Pm2Error, match="named twice"):
            layout(users=[{"name": "shop"}, {"name": "shop"}])


class TestUnit:
    def test_is_the_same_with_one_application_more(self) -> None:
        path = "/etc/systemd/system/pm2-shop.service"
        both = layout(API, {**API, "name": "next", "instances": 3, "kill_timeout": 60000})
        assert file(both, path) == file(layout(), path)

    def test_has_limits_and_a_signal(self) -> None:
        users = [{"name": "shop", "limits": {"memory": "1G"}, "stop_signal": "SIGTERM"}]
        found = layout({**API, "kill_timeout": 20000, "instances": 4}, users=users)
        lines = file(found, "/etc/systemd/system/pm2-shop.service")["content"].splitlines()
        for line in (
            "Type=forking",
            "MemoryMax=1G",
            "Environment=PM2_KILL_SIGNAL=SIGTERM",
            "PIDFile=/var/lib/pm2/shop/pm2.pid",
            "ReadWritePaths=/var/lib/pm2/shop -/var/log/pm2/shop",
        ):
            assert line in lines

    def test_each_user_has_one(self) -> None:
        found = layout(API, {**API, "user": "cms"})
        assert [unit["name"] for unit in found["units"]] == ["pm2-cms.service", "pm2-shop.service"]

    def test_what_a_user_leaves_is_removed_but_for_logs(self) -> None:
        paths = [each["path"] for each in pm2.retired_files(["shop"])]
        assert "/etc/systemd/system/pm2-shop.service" in paths
        assert not [path for path in paths if path.startswith("/var/log")]


def process(name: str = "api", given: str = "h", status: str = "online") -> pm2.Process:
    return pm2.Process(name, given, status)


def wanted(name: str = "api", **values: Any) -> pm2.Wanted:
    return pm2.Wanted("shop", name, "h", **values)


class TestDifference:
    @pytest.mark.parametrize(
        ("found", "delete", "start"),
        [
            ([process()], [], []),
            ([process(status="waiting restart")], [], []),
            ([], [], ["api"]),
            ([process(given="other")], ["api"], ["api"]),
            ([process(status="errored")], ["api"], ["api"]),
            ([process(), process()], ["api"], ["api"]),
            ([process(), process("old")], ["old"], []),
        ],
    )
    def test_is_the_least_that_does(
        self, found: list[pm2.Process], delete: list[str], start: list[str]
    ) -> None:
        changes = pm2.difference([wanted()], found)
        assert (changes.delete, changes.start) == (delete, start)
        assert bool(changes.words) == bool(delete or start)

    def test_what_is_saved_is_compared_with_what_is_wanted(self) -> None:
        two = [wanted(instances=2)]
        assert pm2.is_saved(two, [process(), process()])
        assert not pm2.is_saved(two, [process()])
        assert not pm2.is_saved(two, [process(), process(), process("old")])


class TestFault:
    def fault(self, *running: pm2.Process, **values: Any) -> str | None:
        return pm2.fault(wanted(**values), running, 0, {80}, 10_000)

    def test_one_that_lives_is_well(self) -> None:
        assert self.fault(pm2.Process("api", "h", "online", 0, 1000), ports=(80,)) is None

    def test_one_that_is_young_has_to_live_on_unless_it_is_ready(self) -> None:
        young = pm2.Process("api", "h", "online", 0, 9_500)
        assert self.fault(young) == "it has just been started"
        assert self.fault(young, wait_ready=True) is None

    def test_one_that_ended_is_not_waited_for(self) -> None:
        ended = self.fault(pm2.Process("api", "h", "online", 1, 1000))
        assert ended is not None and ended.startswith("!")

    def test_a_silent_port_and_a_missing_process_are_named(self) -> None:
        up = pm2.Process("api", "h", "online", 0, 1000)
        assert self.fault(up, ports=(81,)) == "nothing listens on port 81"
        assert self.fault(up, instances=2) == "1 of 2 processes are there"


class TestProtocol:
    def test_an_answer_is_read_when_it_is_whole(self) -> None:
        told = (
            b'j:{"args": [[{"pm2_env": {"name": "api", "BERTH_HASH": "h", "status": "online"}}]]}'
        )
        data = b"\x12" + b"".join(len(x).to_bytes(4, "big") + x for x in (told, b"s:berth:1"))
        for length in (0, 1, 4, 20, len(data) - 1):
            assert pm2.answer(data[:length]) is None
        assert pm2.processes(pm2.answer(data)) == [process()]

    def test_an_error_is_one(self) -> None:
        told = b'j:{"error": "no such method"}'
        with pytest.raises(ValueError, match="no such method"):
            pm2.answer(b"\x11" + len(told).to_bytes(4, "big") + told)

    def test_a_question_has_its_call_and_an_identity(self) -> None:
        asked = pm2.question("getMonitorData", {})
        assert asked[0] == 0x12
        size = int.from_bytes(asked[1:5], "big")
        assert json.loads(asked[7 : 5 + size]) == {
            "type": "call",
            "method": "getMonitorData",
            "args": [{}],
        }
