"""What the services of a host come to: files, releases, orders for systemd, probes."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils.app_services import (
    resources,
    retired_files,
    unit_orders,
)
from ansible_collections.berth.platform.plugins.module_utils.systemd_unit import UnitError


def service(**more: Any) -> dict[str, Any]:
    return {
        "name": "sales",
        "unit": "dhanman-sales-prod",
        "home": "/var/www/prod/dhanman-sales",
        "user": "www-data",
        "group": "www-data",
        "artifact": {"path": "/build"},
        "command": "./run --listen {bind}:{port}",
        "instances": [{"name": "1", "unit": "dhanman-sales-prod", "port": 5006}],
    } | more


def files(*services: dict[str, Any], **more: Any) -> dict[str, dict[str, Any]]:
    return {entry["path"]: entry for entry in resources(services, **more)["files"]}


def faults(*services: dict[str, Any]) -> list[str]:
    with pytest.raises(UnitError) as caught:
        resources(services)
    return caught.value.faults


UNIT = "/etc/systemd/system/dhanman-sales-prod.service"
ENVIRONMENT = "/etc/berth/services/dhanman-sales-prod.env"
ROTATION = "/etc/logrotate.d/berth-service-dhanman-sales-prod"
MIGRATION = "/etc/systemd/system/dhanman-sales-prod-migrate@.service"
LOG = {"stdout": "/var/log/shop/sales.log", "stderr": "/var/log/shop/sales.error.log"}


class TestFiles:
    def test_unit(self) -> None:
        text = files(service())[UNIT]["content"]
        assert "ExecStart=/var/www/prod/dhanman-sales/current/run --listen 127.0.0.1:5006\n" in text
        assert f"EnvironmentFile={ENVIRONMENT}\n" in text
        assert "SyslogIdentifier=dhanman-sales-prod\n" in text

    def test_secrets_are_in_private_files_alone(self) -> None:
        entries = files(
            service(
                secret_environment={"JWT": "canary1"},
                credentials={"key": "canary2"},
                environment={"MODE": "production"},
            )
        )
        holders = {path for path, entry in entries.items() if "canary" in entry.get("content", "")}
        assert holders == {ENVIRONMENT, "/etc/berth/credentials/dhanman-sales-prod/key"}
        assert all(entries[path]["mode"] == "0600" for path in holders)
        assert all(entries[path]["secret"] for path in holders)
        assert 'MODE="production"' in entries[ENVIRONMENT]["content"]

    def test_environment_comes_first(self) -> None:
        paths = [entry["path"] for entry in resources([service()])["files"]]
        assert paths.index(ENVIRONMENT) < paths.index(UNIT)

    def test_scope_is_in_the_head(self) -> None:
        assert (
            "# scope: dhanman-prod\n"
            in files(service(), scope="dhanman-prod")[ENVIRONMENT]["content"]
        )

    def test_nothing_is_filled_into_secrets(self) -> None:
        entries = files(service(secret_environment={"S": "{port}"}, environment={"P": "{port}"}))
        assert 'S="{port}"' in entries[ENVIRONMENT]["content"]
        assert 'P="5006"' in entries[ENVIRONMENT]["content"]

    def test_other_braces_stay(self) -> None:
        entries = files(service(environment={"J": '{"a": {port}}', "S": "${port} {{port} {x}"}))
        assert 'J="{\\"a\\": 5006}"' in entries[ENVIRONMENT]["content"]
        assert 'S="\\${port} {{port} {x}"' in entries[ENVIRONMENT]["content"]

    def test_labels_are_units(self) -> None:
        labels = {entry.get("label") for entry in files(service()).values()}
        assert labels == {"dhanman-sales-prod"}

    def test_log_directory_is_not_the_services(self) -> None:
        entry = files(service(log=LOG))["/var/log/shop"]
        assert (entry["owner"], entry["group"], entry["mode"]) == ("root", "adm", "2750")
        assert entry["replace"] is False

    def test_system_directories_are_left_alone(self) -> None:
        entries = files(service(log={"stdout": "/var/log/x.log"}, writable_paths=["/srv"]))
        assert not {"/var/log", "/srv"} & set(entries)

    def test_one_stream_given(self) -> None:
        text = files(service(log={"stdout": "/var/log/shop/x.log"}))[UNIT]["content"]
        assert "StandardError=append:/var/log/shop/x.log" in text

    def test_rotation(self) -> None:
        entries = files(service(log=LOG, log_rotate={"frequency": "weekly", "rotate": 3}))
        text = entries[ROTATION]["content"]
        for word in (
            "/var/log/shop/sales.log\n",
            "/var/log/shop/sales.error.log {",
            "weekly",
            "rotate 3",
            "copytruncate",
        ):
            assert word in text

    def test_shared_log_is_rotated_once(self) -> None:
        other = service(
            name="b", unit="b", home="/srv/b", log=LOG, instances=[{"unit": "b", "port": 1}]
        )
        entries = files(service(log=LOG), other)
        assert "/etc/logrotate.d/berth-service-b" not in entries

    def test_journal_needs_no_rotation(self) -> None:
        assert ROTATION not in files(service())
        assert "logrotate" not in resources([service()])["packages"]

    def test_home_in_home_can_be_read(self) -> None:
        assert "ProtectHome=read-only" in files(service(home="/home/app/shop"))[UNIT]["content"]

    def test_home_directory_can_be_writable(self) -> None:
        entries = files(service(writable_paths=["/srv/data", "-/srv/maybe"]))
        assert entries["/srv/data"]["owner"] == "www-data"
        assert "ReadWritePaths=/srv/data -/srv/maybe" in entries[UNIT]["content"]

    def test_dropped_credentials_go(self) -> None:
        assert resources([service()])["exclusive"] == [
            {"path": "/etc/berth/credentials/dhanman-sales-prod", "pattern": "*"}
        ]


class TestInstances:
    TWO = service(
        unit="shop",
        instances=[
            {"name": "1", "unit": "shop-1", "port": 5001, "environment": {"N": "1"}},
            {
                "name": "2",
                "unit": "shop-2",
                "port": 5002,
                "secret_environment": {"S": "2"},
                "command": "./other {port}",
                "health": {"ready": "http://127.0.0.1:5002/r"},
            },
        ],
        environment={"N": "0", "ALL": "x"},
        log={"stdout": "/var/log/shop/{instance}.log"},
    )

    def test_unit_for_each(self) -> None:
        entries = files(self.TWO)
        assert "5001" in entries["/etc/systemd/system/shop-1.service"]["content"]
        assert "/other 5002" in entries["/etc/systemd/system/shop-2.service"]["content"]

    def test_own_environment_wins(self) -> None:
        entries = files(self.TWO)
        assert 'ALL="x"\nN="1"\n' in entries["/etc/berth/services/shop-1.env"]["content"]
        assert 'ALL="x"\nN="0"\nS="2"\n' in entries["/etc/berth/services/shop-2.env"]["content"]

    def test_one_release_for_all(self) -> None:
        assert len(resources([self.TWO])["releases"]) == 1

    def test_one_rotation_for_all_logs(self) -> None:
        text = files(self.TWO)["/etc/logrotate.d/berth-service-shop-1"]["content"]
        assert "/var/log/shop/1.log" in text
        assert "/var/log/shop/2.log" in text

    def test_probes(self) -> None:
        probes = resources([self.TWO])["probes"]
        assert probes["shop-1"][0]["type"] == "tcp"
        assert (probes["shop-2"][0]["type"], probes["shop-2"][0]["path"]) == ("http", "/r")


class TestProbes:
    def probe(self, **more: Any) -> dict[str, Any]:
        ((probe,),) = resources([service(**more)])["probes"].values()
        return dict(probe)

    def test_path(self) -> None:
        probe = self.probe(health={"ready": "/health/ready", "live": "/health"})
        assert (probe["address"], probe["port"], probe["path"]) == (
            "127.0.0.1",
            5006,
            "/health/ready",
        )

    def test_url(self) -> None:
        probe = self.probe(health={"ready": "https://[::1]:{port}/r?x=1"})
        assert (probe["type"], probe["address"], probe["port"], probe["path"]) == (
            "https",
            "::1",
            5006,
            "/r?x=1",
        )

    @pytest.mark.parametrize(
        ("bind", "asked"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.5", "10.0.0.5")]
    )
    def test_wildcard(self, bind: str, asked: str) -> None:
        assert self.probe(instances=[{"bind": bind, "port": 1}])["address"] == asked

    def test_without_port_the_process(self) -> None:
        probe = self.probe(instances=[{}], command="/bin/worker")
        assert probe["type"] == "systemd"
        assert probe["successes"] > 1

    def test_patience(self) -> None:
        probe = self.probe(start_timeout=120)
        assert probe["retries"] * probe["interval"] == 120


class TestMigration:
    SERVICE = service(migrate="./migrate up --to {current}", secret_environment={"D": "canary"})

    def test_unit(self) -> None:
        text = files(self.SERVICE)[MIGRATION]["content"]
        release = "/var/www/prod/dhanman-sales/releases/%i"
        marker = "/var/lib/berth/migrations/dhanman-sales-prod/%i"
        for line in (
            "Type=oneshot",
            f"WorkingDirectory={release}",
            f"ExecStart={release}/migrate up --to {release}",
            f"ConditionPathExists=!{marker}",
            f"ExecStartPost=+/usr/bin/touch {marker}",
            f"EnvironmentFile={ENVIRONMENT}",
            "ProtectSystem=strict",
            "TimeoutStartSec=600",
        ):
            assert f"{line}\n" in text
        assert "canary" not in text
        assert "[Install]" not in text
        assert "Restart=" not in text

    def test_release_waits_for_it(self) -> None:
        (release,) = resources([self.SERVICE])["releases"]
        assert release["migrate"]["unit"] == "dhanman-sales-prod-migrate@{version}.service"
        assert release["activate"] is True

    @pytest.mark.parametrize(
        ("this", "play", "migrates"),
        [
            ("a", "abc", True),
            ("b", "abc", False),
            ("b", "bc", True),
            ("c", "bc", False),
            ("x", "x", True),
        ],
    )
    def test_one_of_the_hosts(self, this: str, play: str, migrates: bool) -> None:
        (release,) = resources([self.SERVICE | {"migrate_hosts": ["a", "b", "c"]}], "", play, this)[
            "releases"
        ]
        assert (release["migrate"]["here"], release["activate"]) == (migrates, migrates)


class TestWhole:
    def test_nothing(self) -> None:
        assert not any(resources([]).values())

    def test_union_of_packages(self) -> None:
        found = resources(
            [
                service(packages=["python3-pika", "python3-psycopg2"], log=LOG),
                service(
                    name="b",
                    unit="b",
                    home="/b",
                    packages=["python3-pika"],
                    artifact={"git": "https://x/y"},
                    instances=[{"unit": "b"}],
                ),
            ]
        )
        assert found["packages"] == ["git", "logrotate", "python3-pika", "python3-psycopg2"]
        assert [user["name"] for user in found["users"]] == ["www-data"]

    def test_user_defaults_to_the_unit(self) -> None:
        found = resources([service(user=None, group=None)])
        assert found["users"][0]["name"] == found["groups"][0] == "dhanman-sales-prod"

    def test_release_is_roots(self) -> None:
        (release,) = resources([service(version="1", keep=5)])["releases"]
        assert (release["owner"], release["group"]) == ("root", "www-data")
        assert (release["version"], release["keep"]) == ("1", 5)

    def test_all_faults_of_all_services(self) -> None:
        found = faults(
            service(home="relative", artifact=None),
            service(name="b", limits={"memory": "lots"}, instances=[{"unit": "b"}]),
            service(name="c", instances=[{"unit": "c"}], environment={"A B": "canary"}),
            service(name="d", home="/srv", instances=[{"unit": "d d"}]),
            service(name="e", instances=[{"unit": "dhanman-sales-prod", "port": 1}]),
            service(name="f", instances=[{"unit": "dhanman-sales-prod", "port": 2}]),
            service(name="g", command="", instances=[{"unit": "g"}]),
            service(name="h", health={"ready": "/x"}, instances=[{"unit": "h"}]),
        )
        text = "\n".join(found)
        for words in (
            "sales: home: 'relative'",
            "sales: artifact: is missing",
            "b: limits.memory: 'lots'",
            "c: environment: 'A B'",
            "d: home: '/srv' is a directory of the system",
            "d: unit: 'd d'",
            "f: unit dhanman-sales-prod is already that of e",
            "g: command: is missing",
            "h: health: '/x' is a path, but",
        ):
            assert words in text
        assert "canary" not in text


class TestOrders:
    UNITS = [{"name": f"{name}.service", "unit": name, "service": name} for name in ("a", "b", "c")]
    RUNNING = {f"{n}.service": {"active": "active", "enabled": "enabled"} for n in "abcx"}

    def orders(self, **more: Any) -> list[tuple[str, str]]:
        given = {"known": self.RUNNING} | more
        return [(o["name"], o["state"]) for o in unit_orders(self.UNITS, **given)]

    def test_nothing_to_do(self) -> None:
        assert self.orders() == []

    def test_only_what_changed(self) -> None:
        assert self.orders(labels=["a"]) == [("a.service", "restarted")]
        assert self.orders(activated=["b"]) == [("b.service", "restarted")]
        assert self.orders(stale=["c.service"]) == [("c.service", "restarted")]

    def test_first(self) -> None:
        assert self.orders(known={}, labels=["a"]) == [
            ("a.service", "restarted"),
            ("b.service", "started"),
            ("c.service", "started"),
        ]

    def test_disabled_or_dead(self) -> None:
        known = self.RUNNING | {
            "a.service": {"active": "failed", "enabled": "enabled"},
            "b.service": {"active": "active", "enabled": "disabled"},
        }
        assert self.orders(known=known) == [("a.service", "started"), ("b.service", "started")]

    def test_retired(self) -> None:
        assert self.orders(retired=["x", "gone"]) == [("x.service", "stopped")]

    def test_name_goes_last(self) -> None:
        paths = [entry["path"] for entry in retired_files(["x"])]
        assert paths[-1] == "/etc/berth/services/x.env"
        assert "/etc/systemd/system/x.service" in paths


class TestPm2:
    """What PM2 runs has a release, a migration and an environment here, and no unit."""

    SERVICE = service(
        runtime="pm2", migrate="/usr/bin/npm run migrate", log={"stdout": "/var/log/x/x.log"}
    )

    def test_no_unit_no_log_no_probe(self) -> None:
        found = resources([self.SERVICE])
        assert found["units"] == []
        assert found["probes"] == found["logs"] == {}
        assert [each["path"] for each in found["files"] if "logrotate" in each["path"]] == []
        assert "logrotate" not in found["packages"]
        paths = [each["path"] for each in found["files"]]
        unit = self.SERVICE.get("unit", self.SERVICE["name"])
        assert f"/etc/systemd/system/{unit}.service" not in paths
        assert f"/etc/systemd/system/{unit}-migrate@.service" in paths

    def test_it_is_not_taken_for_one_that_is_gone(self) -> None:
        found = resources([self.SERVICE])
        unit = self.SERVICE.get("unit", self.SERVICE["name"])
        assert found["watched"] == [{"name": f"{unit}.service", "paths": []}]
        assert f"/etc/berth/services/{unit}.env" in [each["path"] for each in found["files"]]
        assert [each["name"] for each in found["releases"]] == [self.SERVICE["name"]]
