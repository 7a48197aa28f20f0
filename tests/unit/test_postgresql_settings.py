"""The settings a host gets, down to the figures of a document written by hand."""

from __future__ import annotations

import re

import pytest
from ansible_collections.berth.platform.plugins.module_utils.postgresql_settings import (
    Archive,
    Choice,
    SettingsError,
    Value,
    Wish,
    choose_version,
    derive,
    known_clusters,
    literal,
    megabytes,
    nominal_memory,
    render,
)
from hypothesis import given, settings
from hypothesis import strategies as st

# The document of a production server with 8 cores and 16 GB, every line of it.
DOCUMENT = """
max_connections = 200
shared_buffers = 4GB
effective_cache_size = 12GB
maintenance_work_mem = 1GB
work_mem = 16MB
wal_level = replica
max_wal_size = 4GB
min_wal_size = 1GB
checkpoint_completion_target = 0.9
random_page_cost = 1.1
effective_io_concurrency = 200
logging_collector = on
log_directory = '/var/log/postgresql'
log_filename = 'postgresql-%Y-%m-%d_%H%M%S.log'
log_rotation_age = 1d
log_rotation_size = 100MB
log_min_duration_statement = 1000
autovacuum = on
autovacuum_max_workers = 4
autovacuum_naptime = 30s
"""


def size_mb(value: Value) -> int:
    found = re.fullmatch(r"(\d+)(MB|GB)", str(value))
    assert found, value
    return int(found[1]) * (1024 if found[2] == "GB" else 1)


@pytest.mark.parametrize("memory_mb", [16384, 15990, 15701])
def test_a_16_gb_server_gets_the_document(memory_mb: int) -> None:
    settings = derive(Wish(memory_mb=memory_mb, cores=8))
    written = dict(
        line.replace("'", "").split(" = ") for line in render(settings).strip().splitlines()
    )
    for line in DOCUMENT.strip().splitlines():
        name, _, value = line.partition(" = ")
        assert written[name] == value.strip("'"), name


@pytest.mark.parametrize(
    ("reported", "sold"),
    [(16384, 16384), (15650, 16384), (7950, 8192), (3915, 4096), (1967, 2048), (968, 1024)],
)
def test_what_the_kernel_keeps_is_not_missed(reported: int, sold: int) -> None:
    assert nominal_memory(reported) == sold


@pytest.mark.parametrize("odd", [512, 1300, 2600, 5500])
def test_an_odd_limit_is_taken_as_it_is(odd: int) -> None:
    assert nominal_memory(odd) == odd


def test_a_small_server_keeps_sensible_floors() -> None:
    settings = derive(Wish(memory_mb=900, cores=1))
    assert settings["shared_buffers"] == "225MB"
    assert settings["work_mem"] == "4MB"
    assert settings["maintenance_work_mem"] == "64MB"
    assert settings["max_wal_size"] == "1GB"
    assert settings["min_wal_size"] == "256MB"
    assert settings["max_worker_processes"] == 8
    assert settings["max_parallel_workers_per_gather"] == 1


@settings(deadline=None)
@given(st.integers(128, 2_000_000), st.integers(1, 512), st.integers(10, 5000))
def test_memory_is_never_promised_twice(memory: int, cores: int, connections: int) -> None:
    settings = derive(Wish(memory_mb=memory, cores=cores, max_connections=connections))
    whole = nominal_memory(memory)
    assert memory <= whole <= memory * 1.07
    assert size_mb(settings["shared_buffers"]) <= whole / 4
    assert size_mb(settings["effective_cache_size"]) <= whole * 3 / 4
    assert size_mb(settings["maintenance_work_mem"]) <= max(64, whole / 16)
    assert 4 <= size_mb(settings["work_mem"]) <= 256
    assert size_mb(settings["min_wal_size"]) == size_mb(settings["max_wal_size"]) // 4
    assert int(settings["max_parallel_workers"]) <= int(settings["max_worker_processes"])


def test_overrides_win_and_none_takes_a_setting_out() -> None:
    settings = derive(
        Wish(
            memory_mb=4096,
            cores=2,
            overrides={"Shared_Buffers": "1536MB", "jit": False, "log_lock_waits": None},
        )
    )
    assert settings["shared_buffers"] == "1536MB"
    assert "Shared_Buffers" not in settings
    assert settings["jit"] is False
    assert "log_lock_waits" not in settings


def test_archiving_is_written_only_when_asked_for() -> None:
    plain = derive(Wish(memory_mb=4096, cores=2))
    assert not [name for name in plain if name.startswith("archive")]
    archived = derive(Wish(memory_mb=4096, cores=2, archive=Archive("push %p", 30)))
    assert archived["archive_mode"] is True
    assert archived["archive_command"] == "push %p"
    assert archived["archive_timeout"] == "30s"


def test_a_certificate_turns_tls_on() -> None:
    settings = derive(Wish(memory_mb=4096, cores=2, certificate="/etc/berth/tls/db"))
    assert settings["ssl"] is True
    assert settings["ssl_cert_file"] == "/etc/berth/tls/db/fullchain.pem"
    assert settings["ssl_key_file"] == "/etc/berth/tls/db/privkey.pem"


def test_spinning_disks_are_planned_for_as_such() -> None:
    assert derive(Wish(memory_mb=4096, cores=2, storage="hdd"))["random_page_cost"] == 4.0


def test_all_faults_are_named_at_once() -> None:
    wish = Wish(
        memory_mb=10,
        cores=0,
        port=0,
        max_connections=1,
        storage="tape",
        archive=Archive(""),
        overrides={"no such": 1, "hba_file": "/tmp/x"},
    )
    with pytest.raises(SettingsError) as caught:
        derive(wish)
    for word in ("memory_mb", "cores", "port", "max_connections", "tape", "%p", "no such", "hba_"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("value", "spelt"),
    [
        (True, "on"),
        (False, "off"),
        (0.9, "0.9"),
        (200, "200"),
        ("4GB", "'4GB'"),
        ("it's", "'it''s'"),
        ("a\\b", "'a\\\\b'"),
        ("", "''"),
    ],
)
def test_values_are_spelt_as_the_server_reads_them(value: Value, spelt: str) -> None:
    assert literal(value) == spelt


def test_a_value_cannot_smuggle_in_a_second_line() -> None:
    with pytest.raises(SettingsError):
        literal("x'\nssl = off")


def test_units() -> None:
    assert megabytes(4096) == "4GB"
    assert megabytes(1536) == "1536MB"


class TestVersion:
    def test_the_first_that_is_offered(self) -> None:
        assert choose_version([18, 17, 15], [], [15, 17]).version == 17

    def test_an_existing_cluster_wins_quietly_if_it_is_among_the_preferred(self) -> None:
        assert choose_version([18, 17], [17], [18, 17]) == Choice(17)

    def test_and_loudly_if_it_is_not(self) -> None:
        choice = choose_version([18], [15], [18])
        assert choice.version == 15
        assert "upgrades nothing" in choice.warning

    def test_of_several_clusters_the_most_preferred(self) -> None:
        assert choose_version([17, 15], [15, 17], []).version == 17
        assert choose_version([18], [15, 17], []).version == 17

    @pytest.mark.parametrize(("preferred", "offered"), [([18], [17]), ([], [17])])
    def test_nothing_fits(self, preferred: list[int], offered: list[int]) -> None:
        with pytest.raises(SettingsError):
            choose_version(preferred, [], offered)

    def test_clusters_known_from_facts(self) -> None:
        host = {
            "packages": {
                "postgresql-17": "17.4",
                "postgresql-15": "15.1",
                "postgresql-client-16": "1",
            },
            "units": {"postgresql@17-main.service": {}},
        }
        assert known_clusters(host) == [17]
        assert known_clusters({}) == []
