#!/usr/bin/python
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: health_probe
short_description: Probes any number of endpoints at once
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Looks at HTTP endpoints, ports, certificates, databases, brokers, units and commands, as many
    as there are, in one call and at the same time, from the host that the task runs on.
  - Speaks just enough of each protocol to know that the service is alive, not only its socket.
    A server that accepts and says nothing, resets, answers byte by byte or answers garbage is
    unhealthy, and the error says how far the probe got.
  - Never fails because of an unhealthy probe. The caller decides, by C(failed_when) with
    RV(healthy). It fails for options that are wrong, with every fault of every probe.
  - Uses nothing but Python's standard library on the host.
  - Passwords and the values of headers, query strings and basic credentials that look secret
    are never part of a result, nor is a command's C(argv) after its first element.
extends_documentation_fragment:
  - berth.platform.attributes
  - berth.platform.attributes.reader
attributes:
  check_mode:
    details:
      - The probes run in check mode as well; they only read. Whether an O(probes[].argv) of your
        own only reads is yours to see to.
options:
  probes:
    description:
      - What to look at.
      - Which keys a probe has depends on its O(probes[].type); one that does not belong to it is
        an error.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: A name of its own within the task; results and errors carry it.
        type: str
        required: true
      type:
        description:
          - What is probed, and so what healthy means.
          - V(http) and V(https) send one request and judge status, body and JSON values.
          - V(tcp) connects and, with O(probes[].banner), waits for the server's first words.
          - V(tls) shakes hands, and judges the certificate's name and days to expiry.
          - V(postgresql) logs in and gets the answer to a query. Without O(probes[].user) it is
            what C(pg_isready) does, and the server is healthy if it asks for credentials or
            refuses for any reason but that it is starting up, shutting down or full.
          - V(redis) authenticates and wants C(PONG); C(LOADING) and C(MASTERDOWN) are unhealthy.
            Without O(probes[].password) a server that asks for one is healthy.
          - V(amqp) opens the virtual host as O(probes[].user), and closes in order. Without it a
            server that begins the handshake is healthy.
          - V(kafka) asks a broker for the versions of its API.
          - V(systemd) wants the unit to be active, and not restarted between two looks. All
            units of a task are asked for in one call of C(systemctl).
          - V(command) runs a program without a shell and judges its return code.
        type: str
        required: true
        choices: [http, https, tcp, tls, postgresql, redis, amqp, kafka, systemd, command]
      timeout:
        description:
          - Seconds that one attempt may take in all, by the wall clock, from the resolving of the
            name to the last byte. A server that keeps sending does not outlive it.
        type: float
        default: 5
      retries:
        description: How many attempts may fail without the probe being unhealthy.
        type: int
        default: 0
      interval:
        description: Seconds between two attempts.
        type: float
        default: 1
      successes:
        description: How many attempts in a row must succeed. A failure starts the count anew.
        type: int
        default: 1
      latency:
        description:
          - Seconds after which an attempt counts as failed though it succeeded.
          - With many probes at once part of what is measured is this host's own load. For exact
            bounds lower O(parallel).
        type: float
      unit:
        description:
          - The unit that a V(systemd) probe looks at; C(.service) may be left out.
          - With any other type the unit behind the endpoint, which nobody looks at, but which the
            result carries so that a message can say where the log is.
        type: str
      address:
        description: Address or name to connect to. Default V(127.0.0.1).
        type: str
      port:
        description:
          - Port to connect to.
          - Defaults to the protocol's own, 80, 443 (also V(tls)), 5432, 6379, 5672 or 9092. V(tcp)
            has none.
        type: int
      tls:
        description: Whether V(tcp), V(redis), V(amqp) and V(kafka) are spoken over TLS.
        type: bool
      verify:
        description:
          - Whether the certificate must be signed by a known authority and be for the name.
          - Default V(true). Expiry, and for V(tls) also a O(probes[].server_name) that is given,
            are judged by a V(tls) probe all the same when V(false).
        type: bool
      ca_file:
        description:
          - Certificates of authorities to trust in place of the system's, a PEM file on the host.
        type: str
      server_name:
        description:
          - Name to ask for (SNI) and to find in the certificate. Defaults to O(probes[].host) and
            then O(probes[].address).
        type: str
      path:
        description: Path and query of the request. Default V(/).
        type: str
      method:
        description: Method of the request, sent without a body. Default V(GET).
        type: str
      host:
        description: The Host header, and for V(https) the name that O(probes[].server_name) means.
        type: str
      headers:
        description: Headers to send.
        type: dict
      status:
        description: Statuses that are healthy. Default V([200]). Redirects are not followed.
        type: list
        elements: int
      body:
        description: Regular expression to find in the body, of which 1 MiB is read.
        type: str
      json:
        description:
          - Values by their path in a JSON body, such as C(checks[0].status).
          - Compared as JSON does, so that V(true) is neither V("true") nor V(1).
        type: dict
      days:
        description: Days that the certificate must be valid for yet. Default V(0).
        type: float
      banner:
        description: Regular expression to find in what the server says first, up to 4 KiB.
        type: str
      user:
        description:
          - User to log in as; for V(http) and V(https) by the Basic scheme, for V(redis) an
            ACL user.
        type: str
      password:
        description: Password of O(probes[].user), or of V(redis) itself.
        type: str
      database:
        description: Database to log in to. Defaults to the user's name.
        type: str
      query:
        description:
          - Query whose first value is looked at, in a transaction that cannot write.
          - Default V(SELECT 1), which must give 1.
        type: str
      expect:
        description: Text that the first value of O(probes[].query) must be. Default, anything.
        type: str
      sslmode:
        description: As libpq's C(sslmode). Default V(prefer).
        type: str
        choices: [disable, prefer, require, verify-ca, verify-full]
      vhost:
        description: Virtual host to open. Default V(/).
        type: str
      argv:
        description: Program and arguments. The whole process group ends with the attempt.
        type: list
        elements: str
      rc:
        description: Return codes that are healthy; a signal is its negative number. Default V([0]).
        type: list
        elements: int
  deadline:
    description:
      - Seconds for all probes together. One that is not decided by then is unhealthy with the
        error V(deadline).
    type: float
    default: 120
  parallel:
    description:
      - How many attempts run at the same time, lowered to what the limit on open files allows.
    type: int
    default: 100
notes:
  - A regular expression of the caller's is not bounded in time; one that backtracks without end
    on a hostile body holds up the task.
seealso:
  - name: SCRAM-SHA-256
    description: How PostgreSQL's passwords are checked.
    link: https://www.rfc-editor.org/rfc/rfc7677
  - name: KIP-35
    description: Why ApiVersions is answered by every Kafka broker.
    link: https://cwiki.apache.org/confluence/display/KAFKA/KIP-35+-+Retrieving+protocol+version
"""

EXAMPLES = r"""
- name: The platform answers
  berth.platform.health_probe:
    deadline: 60
    probes:
      - name: sales
        type: http
        port: 5006
        path: /health/ready
        json: {status: ok}
        retries: 10
        successes: 2
        unit: sales.service
      - name: certificate
        type: tls
        address: www.example.com
        days: 14
      - name: database
        type: postgresql
        user: sales
        password: "{{ sales_database_password }}"
        database: sales
      - name: broker
        type: amqp
        user: sales
        password: "{{ sales_broker_password }}"
        vhost: sales
      - name: nginx
        type: systemd
        unit: nginx
  register: health
  failed_when: not health.healthy
"""

RETURN = r"""
healthy:
  description: Whether every probe is healthy; V(true) when there are none.
  returned: always
  type: bool
  sample: false
summary:
  description: How many there are, how many are healthy, and how long it took in seconds.
  returned: always
  type: dict
  sample: {total: 5, healthy: 4, unhealthy: 1, elapsed: 2.018}
probes:
  description: What was seen, in the order of the probes.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The probe's name.
      returned: always
      type: str
      sample: sales
    type:
      description: The probe's type.
      returned: always
      type: str
      sample: http
    target:
      description: What was looked at, as a URL, an address and port, a unit or a program.
      returned: always
      type: str
      sample: http://127.0.0.1:5006/health/ready
    unit:
      description: The unit behind it, if the probe names one.
      returned: always
      type: str
      sample: sales.service
    healthy:
      description: Whether enough attempts in a row succeeded.
      returned: always
      type: bool
      sample: false
    attempts:
      description: How many attempts were begun.
      returned: always
      type: int
      sample: 3
    elapsed:
      description: Seconds from the first attempt to the decision, waits included.
      returned: always
      type: float
      sample: 4.006
    latency:
      description: Seconds that the last attempt took, null if it got no answer.
      returned: always
      type: float
      sample: 0.0041
    first_error:
      description: Why the first of the failed attempts failed, null if none did.
      returned: always
      type: str
      sample: connection refused
    last_error:
      description: Why the last of the failed attempts failed, null if none did.
      returned: always
      type: str
      sample: "status 503, not 200: database is down"
    detail:
      description:
        - What the last attempt saw, by type. V(status), V(bytes) and V(days) for HTTP, V(days),
          V(not_after), V(names), V(issuer) and V(self_signed) for TLS, V(version) for the
          servers that tell it, V(active), V(sub), V(restarts) and V(active_seconds) for units,
          V(rc) and V(output) for commands.
      returned: always
      type: dict
      sample: {status: 503, bytes: 20}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.berth.platform.plugins.module_utils.probe.scheduler import run_probes
from ansible_collections.berth.platform.plugins.module_utils.probe.spec import parse_probes


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            # As a whole: passwords, headers, query strings and arguments stand in it, and a
            # module's options go to the journal. What a probe may hold is read by parse_probes,
            # which names the probe that is wrong.
            "probes": {"type": "list", "elements": "dict", "required": True, "no_log": True},
            "deadline": {"type": "float", "default": 120},
            "parallel": {"type": "int", "default": 100},
        },
        supports_check_mode=True,
    )
    deadline, parallel = module.params["deadline"], module.params["parallel"]
    probes, faults = parse_probes(module.params["probes"])
    if not 0 < deadline <= 86400:
        faults.add("deadline", deadline, "write seconds, more than 0 and at most 86400")
    if not 1 <= parallel <= 10000:
        faults.add("parallel", parallel, "write a whole number from 1 to 10000")
    # Ansible would now blank every word of every probe, names included, in what is returned.
    # Faults and results are free of secrets already, and the options are not returned.
    module.no_log_values.clear()
    invocation = {"module_args": {"deadline": deadline, "parallel": parallel}}
    if faults:
        lines = "\n".join(f"- {line}" for line in faults.lines())
        module.fail_json(msg=f"the probes are not right:\n{lines}", invocation=invocation)
    module.exit_json(changed=False, invocation=invocation, **run_probes(probes, deadline, parallel))


if __name__ == "__main__":
    main()
