# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Service units and environment files as text, from typed values.

The escaping follows systemd.syntax(7), systemd.service(5) ("Command lines") and systemd.exec(5)
("EnvironmentFile="). Every value is checked here, because systemd itself only logs a warning for
a directive that it does not know or cannot read, and then starts the service without it.
"""

from __future__ import annotations

import difflib
import posixpath
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Value: TypeAlias = "str | int | float | bool | Sequence[Any] | None"

# systemd --dump-configuration-items, [Service], of versions 249 to 257 without the long
# deprecated ones.
SERVICE_DIRECTIVES = """
AllowedCPUs AllowedMemoryNodes AmbientCapabilities AppArmorProfile BPFProgram BindPaths
BindReadOnlyPaths BusName CPUAccounting CPUAffinity CPUQuota CPUQuotaPeriodSec
CPUSchedulingPolicy CPUSchedulingPriority CPUSchedulingResetOnFork CPUWeight CacheDirectory
CacheDirectoryMode CapabilityBoundingSet ConfigurationDirectory ConfigurationDirectoryMode
CoredumpFilter CoredumpReceive DefaultMemoryLow DefaultMemoryMin DefaultStartupMemoryLow Delegate
DelegateSubgroup DeviceAllow DevicePolicy DisableControllers DynamicUser Environment
EnvironmentFile ExecCondition ExecPaths ExecReload ExecSearchPath ExecStart ExecStartPost
ExecStartPre ExecStop ExecStopPost ExitType ExtensionDirectories ExtensionImages FailureAction
FileDescriptorStoreMax FileDescriptorStorePreserve FinalKillSignal Group GuessMainPID
IOAccounting IODeviceLatencyTargetSec IODeviceWeight IOReadBandwidthMax IOReadIOPSMax
IOSchedulingClass IOSchedulingPriority IOWeight IOWriteBandwidthMax IOWriteIOPSMax IPAccounting
IPAddressAllow IPAddressDeny IPCNamespacePath IPEgressFilterPath IPIngressFilterPath IgnoreSIGPIPE
ImportCredential InaccessiblePaths KeyringMode KillMode KillSignal LimitAS LimitCORE LimitCPU
LimitDATA LimitFSIZE LimitLOCKS LimitMEMLOCK LimitMSGQUEUE LimitNICE LimitNOFILE LimitNPROC
LimitRSS LimitRTPRIO LimitRTTIME LimitSIGPENDING LimitSTACK LoadCredential
LoadCredentialEncrypted LockPersonality LogExtraFields LogFilterPatterns LogLevelMax LogNamespace
LogRateLimitBurst LogRateLimitIntervalSec LogsDirectory LogsDirectoryMode
ManagedOOMMemoryPressure ManagedOOMMemoryPressureDurationSec ManagedOOMMemoryPressureLimit
ManagedOOMPreference ManagedOOMSwap MemoryAccounting MemoryDenyWriteExecute MemoryHigh MemoryKSM
MemoryLow MemoryMax MemoryMin MemoryPressureThresholdSec MemoryPressureWatch MemorySwapMax
MemoryZSwapMax MemoryZSwapWriteback MountAPIVFS MountFlags MountImages NFTSet NUMAMask NUMAPolicy
NetworkNamespacePath Nice NoExecPaths NoNewPrivileges NonBlocking NotifyAccess OOMPolicy
OOMScoreAdjust OpenFile PAMName PIDFile PassEnvironment Personality PrivateDevices PrivateIPC
PrivateMounts PrivateNetwork PrivatePIDs PrivateTmp PrivateUsers ProcSubset ProtectClock
ProtectControlGroups ProtectHome ProtectHostname ProtectKernelLogs ProtectKernelModules
ProtectKernelTunables ProtectProc ProtectSystem ReadOnlyPaths ReadWritePaths ReloadSignal
RemainAfterExit RemoveIPC Restart RestartForceExitStatus RestartKillSignal RestartMaxDelaySec
RestartMode RestartPreventExitStatus RestartSec RestartSteps RestrictAddressFamilies
RestrictFileSystems RestrictNamespaces RestrictNetworkInterfaces RestrictRealtime
RestrictSUIDSGID RootDirectory RootDirectoryStartOnly RootEphemeral RootHash RootHashSignature
RootImage RootImageOptions RootImagePolicy RootVerity RuntimeDirectory RuntimeDirectoryMode
RuntimeDirectoryPreserve RuntimeMaxSec RuntimeRandomizedExtraSec SELinuxContext SecureBits
SendSIGHUP SendSIGKILL SetCredential SetCredentialEncrypted SetLoginEnvironment Slice
SmackProcessLabel SocketBindAllow SocketBindDeny Sockets StandardError StandardInput
StandardInputData StandardInputText StandardOutput StartupAllowedCPUs
StartupAllowedMemoryNodes StartupCPUWeight StartupIOWeight StartupMemoryHigh StartupMemoryLow
StartupMemoryMax StartupMemorySwapMax StartupMemoryZSwapMax StateDirectory StateDirectoryMode
SuccessExitStatus SupplementaryGroups SurviveFinalKillSignal SyslogFacility SyslogIdentifier
SyslogLevel SyslogLevelPrefix SystemCallArchitectures SystemCallErrorNumber SystemCallFilter
SystemCallLog TTYColumns TTYPath TTYReset TTYRows TTYVHangup TTYVTDisallocate TasksAccounting
TasksMax TemporaryFileSystem TimeoutAbortSec TimeoutCleanSec TimeoutSec TimeoutStartFailureMode
TimeoutStartSec TimeoutStopFailureMode TimeoutStopSec TimerSlackNSec Type UMask UnsetEnvironment
User UtmpIdentifier UtmpMode WatchdogSec WatchdogSignal WorkingDirectory
"""

# What a network service needs none of. MemoryDenyWriteExecute, PrivateUsers and ProcSubset are
# left out on purpose: they break runtimes that compile at run time (.NET, Node.js, Java) or that
# size themselves by /proc/meminfo.
SANDBOX_DEFAULTS: Mapping[str, Value] = {
    "NoNewPrivileges": True,
    "ProtectSystem": "strict",
    "ProtectHome": True,
    "PrivateTmp": True,
    "PrivateDevices": True,
    "ProtectClock": True,
    "ProtectControlGroups": True,
    "ProtectHostname": True,
    "ProtectKernelLogs": True,
    "ProtectKernelModules": True,
    "ProtectKernelTunables": True,
    "ProtectProc": "invisible",
    "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    "RestrictNamespaces": True,
    "RestrictRealtime": True,
    "RestrictSUIDSGID": True,
    "LockPersonality": True,
    "RemoveIPC": True,
    "KeyringMode": "private",
    "CapabilityBoundingSet": "",
    "SystemCallArchitectures": "native",
    "SystemCallFilter": "@system-service",
    "SystemCallErrorNumber": "EPERM",
    "UMask": "0027",
}

_LIMITS = {
    "memory": "MemoryMax",
    "memory_high": "MemoryHigh",
    "swap": "MemorySwapMax",
    "cpu": "CPUQuota",
    "cpu_weight": "CPUWeight",
    "io_weight": "IOWeight",
    "tasks": "TasksMax",
    "files": "LimitNOFILE",
    "processes": "LimitNPROC",
    "core": "LimitCORE",
}
_RESTARTS = ("no", "always", "on-success", "on-failure", "on-abnormal", "on-abort", "on-watchdog")
_TYPES = ("simple", "exec", "forking", "oneshot", "notify", "notify-reload", "dbus", "idle")
_KILL_MODES = ("control-group", "mixed", "process", "none")
_SIGNALS = (
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGABRT",
    "SIGKILL",
    "SIGUSR1",
    "SIGUSR2",
    "SIGTERM",
    "SIGCONT",
    "SIGWINCH",
    "SIGPWR",
)

_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,30}")
_UNIT_NAME = re.compile(
    r"[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]*)?"
    r"\.(service|socket|target|mount|automount|timer|path|slice|device|swap)"
)
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CREDENTIAL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")
_NUMBER = re.compile(r"[0-9]+")
_SIZE = re.compile(r"[0-9]+(\.[0-9]+)?[KMGT]?")
_TIME_PART = re.compile(
    r"([0-9]+(?:\.[0-9]+)?)\s*(us|ms|min|m|sec|s|hr|hours?|h|days?|d|weeks?|w)?"
)
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_@%+=:,./$-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class UnitError(ValueError):
    """Everything that is wrong with a unit; one line for each fault."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = list(faults)


# ---------------------------------------------------------------- quantities


def size(value: Value) -> str:
    """A size of memory: bytes, or with K, M, G, T to the base of 1024, a percentage, infinity."""
    text = _word(value)
    if text == "infinity" or _SIZE.fullmatch(text) or _percentage(text, 100):
        return text
    raise ValueError("a size like 512M, 2G, 50% or infinity is expected")


def cpu(value: Value) -> str:
    """A share of processor time, 100% being one core."""
    text = _word(value)
    if text == "infinity":
        return ""
    if re.fullmatch(r"[0-9]+%", text) and int(text[:-1]) > 0:
        return text
    raise ValueError("a share like 50% or 200% is expected (100% is one core)")


def timespan(value: Value) -> str:
    """A time span of systemd.time(7): a number of seconds, or "1min 30s", "500ms", "infinity"."""
    text = _word(value)
    rest = _TIME_PART.sub("", text).strip()
    if text == "infinity" or (text and not rest and re.search(r"[0-9]", text)):
        return text
    raise ValueError('a time like 30, 30s, 5min, "1min 30s" or infinity is expected')


def seconds(value: Value) -> float:
    """The length of a time span in seconds."""
    text = timespan(value)
    if text == "infinity":
        return float("inf")
    factor = {"us": 1e-6, "ms": 1e-3, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
    short = {
        "sec": "s",
        "hr": "h",
        "hour": "h",
        "hours": "h",
        "day": "d",
        "days": "d",
        "week": "w",
        "weeks": "w",
    }
    return sum(
        float(number) * factor.get(short.get(unit, unit), 1)
        for number, unit in _TIME_PART.findall(text)
    )


def count(value: Value) -> str:
    """A whole number from 1, or infinity."""
    text = _word(value)
    if text == "infinity" or (_NUMBER.fullmatch(text) and int(text) > 0):
        return text
    raise ValueError("a whole number from 1, or infinity, is expected")


def tasks(value: Value) -> str:
    """A whole number from 1, a percentage, or infinity."""
    if _percentage(_word(value), 100):
        return _word(value)
    return count(value)


def weight(value: Value) -> str:
    text = _word(value)
    if _NUMBER.fullmatch(text) and 1 <= int(text) <= 10000:
        return text
    raise ValueError("a whole number from 1 to 10000 is expected")


def core_size(value: Value) -> str:
    text = _word(value)
    return text if text == "0" else size(value)


def signal(value: Value) -> str:
    text = _word(value).upper()
    text = text if text.startswith("SIG") else f"SIG{text}"
    if text in _SIGNALS or re.fullmatch(r"SIGRT(MIN|MAX)([+-][0-9]+)?", text):
        return text
    raise ValueError(f"a signal like SIGINT or SIGTERM is expected{_nearest(text, _SIGNALS)}")


_LIMIT_CHECKS = {
    "memory": size,
    "memory_high": size,
    "swap": lambda value: "0" if _word(value) == "0" else size(value),
    "cpu": cpu,
    "cpu_weight": weight,
    "io_weight": weight,
    "tasks": tasks,
    "files": count,
    "processes": count,
    "core": core_size,
}


def _word(value: Value) -> str:
    if isinstance(value, bool) or value is None or not isinstance(value, (str, int, float)):
        return ""
    return str(value).strip()


def _percentage(text: str, most: int) -> bool:
    match = re.fullmatch(r"([0-9]+)(\.[0-9]+)?%", text)
    return match is not None and 0 < float(text[:-1]) <= most


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


# ---------------------------------------------------------------- escaping


def escape_specifiers(text: str) -> str:
    """Percent signs begin specifiers in nearly every directive."""
    return text.replace("%", "%%")


def quote(text: str, *, variables: bool = False) -> str:
    """One word of a list or of a command line, read by systemd as exactly this text.

    With O(variables) the dollar sign, which begins a variable in command lines only, is
    escaped too.
    """
    escaped = escape_specifiers(text)
    if variables:
        escaped = escaped.replace("$", "$$")
    if _PLAIN_WORD.fullmatch(escaped):
        return escaped
    escaped = escaped.replace("\\", "\\\\").replace('"', '\\"')
    escaped = escaped.replace("\n", "\\n").replace("\t", "\\t")
    escaped = _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", escaped)
    return f'"{escaped}"'


def command_line(argv: Sequence[str]) -> str:
    """ExecStart= for these arguments: no variable, specifier or separator in them is expanded."""
    return " ".join(quote(word, variables=True) for word in argv)


def split_command(command: str, directory: str) -> list[str]:
    """A command as a shell would split it; C(./program) is taken from O(directory)."""
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"the command cannot be split into words: {error}") from error
    if not argv:
        raise ValueError("the command is empty")
    program = argv[0]
    if program.startswith("./"):
        program = posixpath.normpath(posixpath.join(directory, program))
    if not program.startswith("/"):
        raise ValueError(f"the program {argv[0]!r} is neither an absolute path nor begins with ./")
    if "$" in program or _CONTROL.search(program):
        raise ValueError(f"the program {argv[0]!r} has a character that a path here cannot have")
    if any("\x00" in word for word in argv):
        raise ValueError("the command has a null character")
    return [program, *argv[1:]]


def environment_file(environment: Mapping[str, Any], header: Sequence[str] = ()) -> str:
    """The text of an EnvironmentFile=; the service sees exactly these values.

    Raises UnitError that names the variable, never its value.
    """
    faults: list[str] = []
    lines = [f"# {line}" for line in header]
    for name in sorted(environment):
        value = environment[name]
        text = _environment_value(value)
        if not _ENVIRONMENT_NAME.fullmatch(name):
            faults.append(f"environment: {name!r} is not a name of letters, digits and _")
        elif text is None:
            faults.append(f"environment: the value of {name} is neither text nor a number")
        elif _CONTROL.search(text.replace("\n", "").replace("\t", "")):
            faults.append(f"environment: the value of {name} has a control character")
        else:
            escaped = re.sub(r'(["\\$`])', r"\\\1", text)
            lines.append(f'{name}="{escaped}"')
    if faults:
        raise UnitError(faults)
    return "".join(f"{line}\n" for line in lines)


def _environment_value(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    return None


# ---------------------------------------------------------------- directives


def _normal(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


_DIRECTIVES = {_normal(name): name for name in SERVICE_DIRECTIVES.split()}


def directive(name: str) -> str:
    """The directive that a name like C(no_new_privileges) or C(NoNewPrivileges) stands for."""
    found = _DIRECTIVES.get(_normal(name))
    if found is None:
        close = difflib.get_close_matches(_normal(name), list(_DIRECTIVES), n=1)
        hint = f"; did you mean {_DIRECTIVES[close[0]]}?" if close else ""
        raise ValueError(f"{name} is not a directive of systemd's [Service] section{hint}")
    return found


def directive_lines(name: str, value: Value) -> list[str]:
    """The lines of a directive; a list gives one line for each element, None gives none."""
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        return [line for element in value for line in directive_lines(name, element)]
    if isinstance(value, bool):
        return [f"{name}={'yes' if value else 'no'}"]
    if not isinstance(value, (str, int, float)):
        raise ValueError(f"{name}: text, a number, a boolean or a list of them is expected")
    text = str(value).strip()
    if _CONTROL.search(text) or text.endswith("\\"):
        raise ValueError(f"{name}: a line break, control character or final backslash is refused")
    return [f"{name}={text}"]


# ---------------------------------------------------------------- the unit


@dataclass(frozen=True)
class ServiceUnit:
    """A service. Texts are meant literally; only O(sandbox) and O(directives) are systemd's own."""

    description: str
    command: Sequence[str] | str
    user: str = ""
    group: str = ""
    supplementary_groups: Sequence[str] = ()
    working_directory: str = ""
    type: str = "exec"
    after: Sequence[str] = ()
    before: Sequence[str] = ()
    requires: Sequence[str] = ()
    wants: Sequence[str] = ()
    part_of: Sequence[str] = ()
    conditions: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    environment_files: Sequence[str] = ()
    credentials: Mapping[str, str] = field(default_factory=dict)
    restart: str = "always"
    restart_seconds: Value = 5
    kill_signal: str = "SIGTERM"
    kill_mode: str = ""
    start_seconds: Value = None
    stop_seconds: Value = 30
    syslog_identifier: str = ""
    stdout: str = ""
    stderr: str = ""
    limits: Mapping[str, Value] = field(default_factory=dict)
    sandbox: Mapping[str, Value] = field(default_factory=dict)
    sandbox_defaults: bool = True
    writable_paths: Sequence[str] = ()
    read_only_paths: Sequence[str] = ()
    directives: Mapping[str, Value] = field(default_factory=dict)
    exec_start_post: Sequence[str] = ()
    wanted_by: Sequence[str] = ("multi-user.target",)


class _Lines:
    """Collects the lines of a section, and the faults on the way."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.faults: list[str] = []

    def add(self, name: str, text: str) -> None:
        if text:
            self.lines.append(f"{name}={text}")

    def fault(self, key: str, message: str) -> None:
        self.faults.append(f"{key}: {message}")

    def checked(self, key: str, name: str, check: Any, value: Value) -> None:
        if value is None or value == "":
            return
        try:
            self.add(name, check(value))
        except ValueError as error:
            self.fault(key, f"{value!r}: {error}")

    def raw(self, key: str, name: str, value: Value) -> None:
        try:
            self.lines.extend(directive_lines(name, value))
        except ValueError as error:
            self.fault(key, str(error))

    def text(self, key: str, name: str, value: str) -> None:
        if _CONTROL.search(value) or value.endswith("\\"):
            self.fault(key, "a line break, control character or final backslash is refused")
        else:
            self.add(name, escape_specifiers(value))

    def path(self, key: str, value: str, prefixes: str = "") -> str:
        bare = value.lstrip(prefixes) if prefixes else value
        if not bare.startswith("/") or _CONTROL.search(bare) or bare.endswith("\\"):
            self.fault(key, f"{value!r}: an absolute path is expected")
        return value


def render(unit: ServiceUnit) -> str:
    """The unit's file. Raises UnitError with everything that is wrong."""
    head, body = _Lines(), _Lines()
    _unit_section(unit, head)
    _service_section(unit, body)
    faults = head.faults + body.faults
    if faults:
        raise UnitError(faults)
    parts = ["# Written by Berth; changes made here are lost.", "[Unit]", *head.lines]
    parts += ["", "[Service]", *body.lines]
    if unit.wanted_by:
        parts += ["", "[Install]", f"WantedBy={' '.join(unit.wanted_by)}"]
    return "\n".join(parts) + "\n"


def _unit_section(unit: ServiceUnit, out: _Lines) -> None:
    if not unit.description.strip():
        out.fault("description", "is empty")
    out.text("description", "Description", unit.description)
    for key, name in (
        ("after", "After"),
        ("before", "Before"),
        ("requires", "Requires"),
        ("wants", "Wants"),
        ("part_of", "PartOf"),
        ("wanted_by", ""),
    ):
        names = list(dict.fromkeys(getattr(unit, key)))
        for other in names:
            if not _UNIT_NAME.fullmatch(other):
                out.fault(key, f"{other!r}: a full name like redis.service is expected")
        if name:
            out.add(name, " ".join(names))
    for name, text in sorted(unit.conditions.items()):
        if not re.fullmatch(r"(Condition|Assert)[A-Za-z0-9]+", name):
            out.fault("conditions", f"{name!r}: a name like ConditionPathExists is expected")
        out.raw("conditions", name, text)
    if unit.restart == "always":
        # A service that is to run always must not be given up after five quick failures, such
        # as those while its database restarts.
        out.add("StartLimitIntervalSec", "0")


def _service_section(unit: ServiceUnit, out: _Lines) -> None:
    if unit.type not in _TYPES:
        out.fault("type", f"{unit.type!r}: one of {', '.join(_TYPES)} is expected")
    out.add("Type", unit.type)
    for key, name in (("user", "User"), ("group", "Group")):
        value = getattr(unit, key)
        if value and not _USER.fullmatch(value):
            out.fault(key, f"{value!r} is not the name of a user or group")
        out.add(name, value)
    for group in unit.supplementary_groups:
        if not _USER.fullmatch(group):
            out.fault("supplementary_groups", f"{group!r} is not the name of a group")
    out.add("SupplementaryGroups", " ".join(unit.supplementary_groups))
    if unit.working_directory:
        out.text(
            "working_directory",
            "WorkingDirectory",
            out.path("working_directory", unit.working_directory),
        )
    _commands(unit, out)
    _environment(unit, out)

    if unit.restart not in _RESTARTS:
        out.fault("restart", f"{unit.restart!r}: one of {', '.join(_RESTARTS)} is expected")
    out.add("Restart", unit.restart if unit.restart != "no" else "")
    if unit.restart != "no":
        out.checked("restart_seconds", "RestartSec", timespan, unit.restart_seconds)
    out.checked("kill_signal", "KillSignal", signal, unit.kill_signal)
    if unit.kill_mode not in ("", *_KILL_MODES):
        out.fault("kill_mode", f"{unit.kill_mode!r}: one of {', '.join(_KILL_MODES)} is expected")
    out.add("KillMode", unit.kill_mode)
    out.checked("start_seconds", "TimeoutStartSec", timespan, unit.start_seconds)
    out.checked("stop_seconds", "TimeoutStopSec", timespan, unit.stop_seconds)

    out.text("syslog_identifier", "SyslogIdentifier", unit.syslog_identifier)
    for key, name in (("stdout", "StandardOutput"), ("stderr", "StandardError")):
        value = getattr(unit, key)
        if value.startswith("/"):
            out.text(key, name, f"append:{out.path(key, value)}")
        elif value in ("journal", "null", "inherit"):
            out.add(name, value)
        elif value:
            out.fault(key, f"{value!r}: an absolute path, journal or null is expected")

    for key in unit.limits:
        if key not in _LIMITS:
            out.fault(f"limits.{key}", f"is not a limit{_nearest(key, _LIMITS)}")
    for key, name in _LIMITS.items():
        out.checked(f"limits.{key}", name, _LIMIT_CHECKS[key], unit.limits.get(key))
    _sandbox(unit, out)
    for key, paths, name in (
        ("writable_paths", unit.writable_paths, "ReadWritePaths"),
        ("read_only_paths", unit.read_only_paths, "ReadOnlyPaths"),
    ):
        out.add(name, " ".join(quote(out.path(key, path, "-+")) for path in dict.fromkeys(paths)))


def _commands(unit: ServiceUnit, out: _Lines) -> None:
    try:
        argv = (
            split_command(unit.command, unit.working_directory or "/")
            if isinstance(unit.command, str)
            else split_command(shlex.join(unit.command), unit.working_directory or "/")
        )
        out.add("ExecStart", command_line(argv))
    except ValueError as error:
        out.fault("command", str(error))
    for line in unit.exec_start_post:
        out.raw("exec_start_post", "ExecStartPost", line)


def _environment(unit: ServiceUnit, out: _Lines) -> None:
    for name in sorted(unit.environment):
        value = _environment_value(unit.environment[name])
        if not _ENVIRONMENT_NAME.fullmatch(name):
            out.fault("environment", f"{name!r} is not a name of letters, digits and _")
        elif value is None or _CONTROL.search(value.replace("\n", "").replace("\t", "")):
            out.fault("environment", f"the value of {name} is not text, or has a control character")
        else:
            out.add("Environment", quote(f"{name}={value}"))
    for path in unit.environment_files:
        out.text("environment_files", "EnvironmentFile", out.path("environment_files", path, "-"))
    for name, path in sorted(unit.credentials.items()):
        if not _CREDENTIAL_NAME.fullmatch(name):
            out.fault("credentials", f"{name!r} is not a name of letters, digits, _ . and -")
        out.add("LoadCredential", f"{name}:{escape_specifiers(out.path('credentials', path))}")


def _sandbox(unit: ServiceUnit, out: _Lines) -> None:
    chosen: dict[str, Value] = dict(SANDBOX_DEFAULTS) if unit.sandbox_defaults else {}
    for key, options in (("sandbox", unit.sandbox), ("directives", unit.directives)):
        for name, value in sorted(options.items()):
            try:
                chosen[directive(name)] = value
            except ValueError as error:
                out.fault(key, str(error))
    if any(str(value) for name, value in chosen.items() if name == "AmbientCapabilities" and value):
        _grant_ambient(chosen, unit)
    for name, value in chosen.items():
        out.raw("sandbox", name, value)


def _grant_ambient(chosen: dict[str, Value], unit: ServiceUnit) -> None:
    """A capability that is given must not be masked by our own default."""
    given = {_normal(name) for name in (*unit.sandbox, *unit.directives)}
    if unit.sandbox_defaults and _normal("CapabilityBoundingSet") not in given:
        chosen["CapabilityBoundingSet"] = chosen["AmbientCapabilities"]


def from_mapping(values: Mapping[str, Any]) -> ServiceUnit:
    """A unit from what a playbook gives. Raises UnitError for a key that is not known."""
    known = ServiceUnit.__dataclass_fields__
    faults = [
        f"{key}: is not an option of a service unit{_nearest(key, known)}"
        for key in values
        if key not in known
    ]
    faults += [f"{key}: is missing" for key in ("description", "command") if not values.get(key)]
    if faults:
        raise UnitError(faults)
    return ServiceUnit(**{key: value for key, value in values.items() if value is not None})
