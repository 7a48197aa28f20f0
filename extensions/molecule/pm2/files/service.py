"""An application that is not of Node.js."""

import http.server
import json
import os


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        told = {"pid": os.getpid(), "secret": os.environ.get("SECRET")}
        self.wfile.write(json.dumps(told).encode())


http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
