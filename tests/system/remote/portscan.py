"""Connects to TCP ports of one address, from one address, and says which are open.

Reads {target, source, ports: [first, last] or a list, rate, wait} as JSON from the standard input.
A port that does not answer is waited for long enough for one repetition of the first packet.
"""

import errno
import json
import resource
import select
import socket
import sys
import time
from collections import deque

IP_BIND_ADDRESS_NO_PORT = 24

data = json.load(sys.stdin)
target, source, given = data["target"], data["source"], data["ports"]
ports = deque(range(given["first"], given["last"] + 1) if isinstance(given, dict) else given)
rate, wait = data.get("rate", 25000), data.get("wait", 1.3)
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
most = hard - 64
family = socket.AF_INET6 if ":" in target else socket.AF_INET
where = socket.getaddrinfo(target, 1, family, socket.SOCK_STREAM)[0][4]
asking = {}
waiting = deque()
poll = select.epoll()
opened, refused, silent = [], 0, 0


def close(number):
    connection, _port = asking.pop(number)
    poll.unregister(number)
    connection.close()


began = time.monotonic()
sent = 0
while ports or asking:
    now = time.monotonic()
    while ports and len(asking) < most and sent < (now - began) * rate + 100:
        port = ports.popleft()
        sent += 1
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.setblocking(False)
        if source:
            connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            connection.bind((source, 0))
        error = connection.connect_ex((where[0], port, *where[2:]))
        if error not in (0, errno.EINPROGRESS):
            refused += 1
            connection.close()
            continue
        number = connection.fileno()
        asking[number] = (connection, port)
        waiting.append((now + wait, number, port))
        poll.register(number, select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP)
    for number, _event in poll.poll(0.005, 4096):
        connection, port = asking[number]
        if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
            opened.append(port)
        else:
            refused += 1
        close(number)
    while waiting and (waiting[0][0] < time.monotonic() or waiting[0][1] not in asking):
        _deadline, number, port = waiting.popleft()
        if number in asking and asking[number][1] == port:
            silent += 1
            close(number)
json.dump({"open": sorted(opened), "refused": refused, "silent": silent}, sys.stdout)
