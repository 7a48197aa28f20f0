"""Unit files and environment files: the text, and what systemd itself reads from it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils.systemd_unit import (
    SANDBOX_DEFAULTS,
    SERVICE_DIRECTIVES,
    UnitError,
    command_line,
    core_size,
    count,
    cpu,
    directive,
    environment_file,
    from_mapping,
    quote,
    render,
    seconds,
    signal,
    size,
    split_command,
    tasks,
    timespan,
    weight,
)
from hypothesis import given
from hypothesis import strategies as st

MINIMAL = {"description": "A service", "command": "/bin/true"}


def unit(**options: Any) -> str:
    return render(from_mapping(MINIMAL | options))


def faults(**options: Any) -> list[str]:
    with pytest.raises(UnitError) as caught:
        unit(**options)
    return caught.value.faults


class TestDhanman:
    """Every line of a unit as a team runs it, and the hardening of another."""

    TEXT = unit(
        description="Dhanman Sales - Production",
        after=["network.target", "postgresql.service", "rabbitmq-server.service"],
        working_directory="/var/www/prod/dhanman-sales",
        command="/usr/bin/dotnet /var/www/prod/dhanman-sales/Dhanman.Sales.dll "
        '--urls "http://localhost:5006"',
        restart="always",
        restart_seconds=10,
        kill_signal="SIGINT",
        syslog_identifier="dhanman-sales-prod",
        user="www-data",
        group="www-data",
        environment={
            "ASPNETCORE_ENVIRONMENT": "Production",
            "DOTNET_PRINT_TELEMETRY_MESSAGE": False,
        },
        stdout="/var/log/dhanman/prod/sales.log",
        stderr="/var/log/dhanman/prod/sales.error.log",
        limits={"files": 65536, "memory": "2G", "cpu": "200%"},
        sandbox={"protect_system": "full", "no_new_privileges": True, "private_tmp": True},
        writable_paths=["/opt/servqr/storage", "/opt/servqr/logs"],
        read_only_paths=["/opt/servqr"],
    )

    @pytest.mark.parametrize(
        "line",
        [
            "Description=Dhanman Sales - Production",
            "After=network.target postgresql.service rabbitmq-server.service",
            "WorkingDirectory=/var/www/prod/dhanman-sales",
            "ExecStart=/usr/bin/dotnet /var/www/prod/dhanman-sales/Dhanman.Sales.dll --urls "
            "http://localhost:5006",
            "Restart=always",
            "RestartSec=10",
            "KillSignal=SIGINT",
            "SyslogIdentifier=dhanman-sales-prod",
            "User=www-data",
            "Group=www-data",
            "Environment=ASPNETCORE_ENVIRONMENT=Production",
            "Environment=DOTNET_PRINT_TELEMETRY_MESSAGE=false",
            "StandardOutput=append:/var/log/dhanman/prod/sales.log",
            "StandardError=append:/var/log/dhanman/prod/sales.error.log",
            "LimitNOFILE=65536",
            "MemoryMax=2G",
            "CPUQuota=200%",
            "WantedBy=multi-user.target",
            "ProtectSystem=full",
            "NoNewPrivileges=yes",
            "PrivateTmp=yes",
            "ReadWritePaths=/opt/servqr/storage /opt/servqr/logs",
            "ReadOnlyPaths=/opt/servqr",
        ],
    )
    def test_line(self, line: str) -> None:
        assert line in self.TEXT.splitlines()

    def test_sections_in_order(self) -> None:
        sections = [line for line in self.TEXT.splitlines() if line.startswith("[")]
        assert sections == ["[Unit]", "[Service]", "[Install]"]

    def test_order_of_keys_does_not_matter(self) -> None:
        options: dict[str, dict[str, Any]] = {
            "limits": {"memory": "1G", "cpu": "50%", "files": 10},
            "sandbox": {"umask": "0077", "nice": 5, "delegate": True},
            "credentials": {"b": "/b", "a": "/a"},
            "environment": {"B": "1", "A": "2"},
        }
        turned = {key: dict(reversed(value.items())) for key, value in options.items()}
        assert unit(**options) == unit(**turned)

    def test_always_means_always(self) -> None:
        assert "StartLimitIntervalSec=0" in self.TEXT
        assert "StartLimitIntervalSec" not in unit(restart="on-failure")


class TestSandbox:
    def test_defaults_are_known_directives(self) -> None:
        assert set(SANDBOX_DEFAULTS) <= set(SERVICE_DIRECTIVES.split())

    def test_safe_by_default(self) -> None:
        lines = unit().splitlines()
        for line in ("ProtectSystem=strict", "CapabilityBoundingSet=", "PrivateDevices=yes"):
            assert line in lines

    def test_null_leaves_a_default_out(self) -> None:
        assert "ProtectHome" not in unit(sandbox={"protect_home": None})

    def test_without_any(self) -> None:
        assert "Protect" not in unit(sandbox_defaults=False)

    def test_list_gives_lines(self) -> None:
        text = unit(sandbox={"system_call_filter": ["@system-service", "~@privileged"]})
        assert "SystemCallFilter=@system-service\nSystemCallFilter=~@privileged\n" in text

    def test_overrides_replace_and_do_not_add(self) -> None:
        assert unit(sandbox={"umask": "0077"}).count("UMask=") == 1

    def test_given_capability_is_not_masked(self) -> None:
        text = unit(sandbox={"ambient_capabilities": "CAP_NET_BIND_SERVICE"})
        assert "CapabilityBoundingSet=CAP_NET_BIND_SERVICE" in text

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("no_new_privileges", "NoNewPrivileges"),
            ("NoNewPrivileges", "NoNewPrivileges"),
            ("limit_nofile", "LimitNOFILE"),
            ("restrict_suid_sgid", "RestrictSUIDSGID"),
            ("ip_address_deny", "IPAddressDeny"),
            ("cpu_quota", "CPUQuota"),
            ("umask", "UMask"),
            ("oom_score_adjust", "OOMScoreAdjust"),
        ],
    )
    def test_names(self, name: str, expected: str) -> None:
        assert directive(name) == expected

    def test_misspelt_name(self) -> None:
        assert "did you mean ProtectSystem?" in faults(sandbox={"protect_sytem": True})[0]

    @pytest.mark.parametrize("value", ["a\nExecStartPre=/bin/evil", "a\\", "a\x00"])
    def test_no_second_line_by_a_value(self, value: str) -> None:
        assert "refused" in faults(sandbox={"protect_system": value})[0]


class TestQuantities:
    @pytest.mark.parametrize(
        ("check", "good"),
        [
            (size, ["2G", "512M", "1.5G", 1048576, "50%", "infinity"]),
            (cpu, ["200%", "5%"]),
            (timespan, [30, "30", "30s", "1min 30s", "500ms", "infinity", "2h"]),
            (count, [1, "65536", "infinity"]),
            (tasks, [64, "10%", "infinity"]),
            (weight, [1, 10000]),
            (core_size, [0, "0", "1M", "infinity"]),
            (signal, ["SIGINT", "INT", "sigterm", "SIGRTMIN+3"]),
        ],
    )
    def test_good(self, check: Any, good: list[Any]) -> None:
        for value in good:
            check(value)

    @pytest.mark.parametrize(
        ("check", "bad"),
        [
            (size, ["2GB", "2 G", "-1", "", "lots", True, None, "150%", "0%", [1]]),
            (cpu, ["200", "2 cores", "-5%", "0%", "1.5"]),
            (timespan, ["soon", "", "10 parsecs", None, "-3s", True]),
            (count, [0, -1, "many", 1.5, "1k"]),
            (weight, [0, 10001, "x"]),
            (signal, ["SIGFOO", "", 9]),
        ],
    )
    def test_bad(self, check: Any, bad: list[Any]) -> None:
        for value in bad:
            with pytest.raises(ValueError, match="expected"):
                check(value)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [("90", 90), ("1min 30s", 90), ("500ms", 0.5), ("2h", 7200), ("1 week", 604800)],
    )
    def test_seconds(self, text: str, expected: float) -> None:
        assert seconds(text) == expected

    def test_all_faults_at_once(self) -> None:
        found = faults(
            limits={"memory": "2GB", "cpu": "2", "memroy": "1G"},
            kill_signal="SIGNIT",
            restart="sometimes",
            user="no one",
            after=["postgresql"],
            stdout="log.txt",
            command="dotnet app.dll",
            working_directory="relative",
            writable_paths=["data"],
        )
        assert len(found) == 11
        assert any("did you mean memory?" in fault for fault in found)
        assert any("did you mean SIGINT?" in fault for fault in found)
        assert any("full name like redis.service" in fault for fault in found)

    def test_unknown_option(self) -> None:
        with pytest.raises(UnitError, match="did you mean restart_seconds"):
            from_mapping(MINIMAL | {"restart_second": 5})

    @pytest.mark.parametrize("key", ["description", "command"])
    def test_required(self, key: str) -> None:
        with pytest.raises(UnitError, match=f"{key}: is missing"):
            from_mapping({k: v for k, v in MINIMAL.items() if k != key})


class TestEscaping:
    @pytest.mark.parametrize(
        ("word", "expected"),
        [
            ("plain", "plain"),
            ("two words", '"two words"'),
            ("100%", "100%%"),
            ("$HOME", "$$HOME"),
            ('say "x"', '"say \\"x\\""'),
            ("back\\slash", '"back\\\\slash"'),
            ("", '""'),
            (";", '";"'),
            ("tab\tnew\nline", '"tab\\tnew\\nline"'),
            ("bell\x07", '"bell\\x07"'),
            ("plain\n", '"plain\\n"'),
            ("ünïcode", '"ünïcode"'),
        ],
    )
    def test_words(self, word: str, expected: str) -> None:
        assert quote(word, variables=True) == expected

    def test_dollar_in_lists_is_plain(self) -> None:
        assert quote("A=$B") == "A=$B"

    def test_command_is_split_like_a_shell_and_not_expanded(self) -> None:
        argv = split_command("/bin/echo 'two words' \"$HOME\" %n", "/")
        assert command_line(argv) == '/bin/echo "two words" $$HOME %%n'

    @pytest.mark.parametrize(
        ("command", "word"),
        [
            ("dotnet app.dll", "absolute"),
            ("", "empty"),
            ("/bin/x 'open", "split"),
            ("/opt/$X/run", "character"),
        ],
    )
    def test_bad_commands(self, command: str, word: str) -> None:
        with pytest.raises(ValueError, match=word):
            split_command(command, "/")

    def test_program_of_the_release(self) -> None:
        assert split_command("./bin/run up", "/srv/x/current") == ["/srv/x/current/bin/run", "up"]

    def test_description_cannot_add_a_line(self) -> None:
        assert faults(description="x\n[Service]") == [
            "description: a line break, control character or final backslash is refused"
        ]

    @pytest.mark.parametrize(
        "option",
        [
            {"user": "x\n"},
            {"group": "x\nUser=root"},
            {"supplementary_groups": ["x\n"]},
            {"after": ["x.service\n"]},
            {"wanted_by": ["x.target\n"]},
            {"conditions": {"ConditionUser": "x\ny"}},
            {"conditions": {"ExecStart": "/bin/x"}},
            {"exec_start_post": ["/bin/x\nUser=root"]},
            {"environment": {"A\n": "x"}},
            {"environment_files": ["/x\n"]},
            {"credentials": {"a\n": "/x"}},
            {"credentials": {"a": "/x\n"}},
            {"stdout": "/x\n"},
            {"working_directory": "/x\n"},
            {"syslog_identifier": "x\n"},
            {"writable_paths": ["/x\n"]},
            {"kill_signal": "SIGINT\nUser=root"},
            {"limits": {"memory": "1G\nUser=root"}},
            {"restart_seconds": "5\nUser=root"},
        ],
        ids=str,
    )
    def test_no_option_can_add_a_line(self, option: dict[str, Any]) -> None:
        assert faults(**option)

    def test_environment_file(self) -> None:
        text = environment_file({"B": 'a "b" $c `d` \\', "A": True, "N": 5, "L": "x\ny"}, ["head"])
        assert text == ('# head\nA="true"\nB="a \\"b\\" \\$c \\`d\\` \\\\"\nL="x\ny"\nN="5"\n')

    @pytest.mark.parametrize(
        ("environment", "word"),
        [
            ({"A B": "x"}, "name"),
            ({"A": ["canary"]}, "neither text"),
            ({"A": "canary\x01"}, "control"),
            ({"A": None}, "neither text"),
        ],
    )
    def test_bad_environment_does_not_show_values(
        self, environment: dict[str, Any], word: str
    ) -> None:
        with pytest.raises(UnitError, match=word) as caught:
            environment_file(environment)
        assert "canary" not in str(caught.value)


needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed"
)


def verify(tmp_path: Path, text: str) -> str:
    """What systemd says of a unit; empty when it likes it."""
    path = tmp_path / "sample.service"
    path.write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = (done.stderr + done.stdout).splitlines()
    return "\n".join(line for line in lines if "sample.service" in line)


@needs_systemd
class TestSystemdItself:
    def test_reads_the_whole_of_it(self, tmp_path: Path) -> None:
        text = unit(
            description="100% of it: \"quotes\" and 'more'",
            command="""/bin/echo 'two words' ';' "$HOME" 100% 'a"b' 'back\\slash'""",
            environment={"GREETING": 'a "b" 100% \\ $x'},
            environment_files=["-/etc/with space%.env"],
            credentials={"key": "/etc/passwd"},
            limits={
                "memory": "2G",
                "memory_high": "1G",
                "swap": 0,
                "cpu": "200%",
                "cpu_weight": 100,
                "io_weight": 100,
                "tasks": "10%",
                "files": 65536,
                "processes": 100,
                "core": 0,
            },
            writable_paths=["-/srv/two words", "/tmp"],
            stdout="/var/log/100% sure.log",
            conditions={"ConditionPathExists": "!/nonexistent"},
            exec_start_post=["+/bin/true"],
            sandbox={"system_call_filter": ["@system-service", "~@privileged"]},
        )
        assert verify(tmp_path, text) == ""

    def test_would_tell(self, tmp_path: Path) -> None:
        """The check above means something: systemd does complain of what is wrong."""
        text = unit().replace("[Install]", "MemoryMax=2GB\n[Install]")
        assert "Invalid memory limit" in verify(tmp_path, text)

    def test_knows_every_directive(self, tmp_path: Path) -> None:
        known = subprocess.run(
            ["/lib/systemd/systemd", "--dump-configuration-items"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        if "[Service]" not in known:
            pytest.skip("systemd does not list its directives here")
        section = known.partition("[Service]")[2].partition("\n\n")[0]
        here = {line.partition("=")[0] for line in section.splitlines()}
        # Newer versions have more, older ones have names that are deprecated.
        assert len(set(SERVICE_DIRECTIVES.split()) & here) > 200


@given(st.text(st.characters(blacklist_characters="\x00", blacklist_categories=["Cs"])))
def test_every_text_becomes_one_word(text: str) -> None:
    quoted = quote(text, variables=True)
    assert "\n" not in quoted
    if quoted.startswith('"'):
        inner = quoted[1:-1].replace("\\\\", "").replace('\\"', "")
        assert '"' not in inner
    else:
        assert not set(quoted) & set(" \t\"'\\;")
