"""One HTTP request from this host. Reads {url, method, body, headers, source, address, port, tls}
as JSON from the standard input; the certificate is not looked at, the probes do that."""

import http.client
import json
import socket
import ssl
import sys

data = json.load(sys.stdin)
source = (data["source"], 0) if data.get("source") else None
raw = socket.create_connection((data["address"], data["port"]), 10, source)
if data.get("tls"):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    raw = context.wrap_socket(raw, server_hostname=data["host"])
connection = http.client.HTTPConnection(data["host"])
connection.sock = raw
headers = {"Host": data["host"], "Connection": "close", **data.get("headers", {})}
body = data.get("body")
connection.request(data.get("method", "GET"), data["path"], body and body.encode(), headers)
answer = connection.getresponse()
text = answer.read().decode(errors="replace")
json.dump(
    {
        "status": answer.status,
        "headers": {k.lower(): v for k, v in answer.getheaders()},
        "text": text,
    },
    sys.stdout,
)
