"""The demo's target: mutual TLS 1.3, and every delivery checked by the independent library standardwebhooks.

In: a JSON document on standard input, {"private_key": PEM, "secrets": {target: secret}}; then POST
/hooks/<target>. Out: one JSON line per delivery on standard output. A delivery that does not verify is
answered with 401 and reported with the reason. Ends on SIGTERM.
"""

import argparse
import hashlib
import json
import os
import signal
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

BODY_BYTES_MAX = 2 * 1024 * 1024
HANDSHAKE_SECONDS_MAX = 10


class Deliveries(BaseHTTPRequestHandler):
    """One connection from an egress."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        # The handshake runs in the connection's own thread: a silent client delays nobody else.
        self.request.settimeout(HANDSHAKE_SECONDS_MAX)
        self.request.do_handshake()
        self.request.settimeout(None)
        super().setup()

    def do_POST(self):
        length = self.headers.get("content-length", "")
        if not length.isdigit() or int(length) > BODY_BYTES_MAX:
            self.close_connection = True
            return self.answer(411)
        body = self.rfile.read(int(length))
        name = self.path.removeprefix("/hooks/")
        if name not in self.server.webhooks:
            return self.answer(404)
        fault = self.check(self.server.webhooks[name], body)
        down = name == "flaky" and os.path.exists(self.server.flaky_down)
        self.server.report(
            {
                "event_id": self.headers.get("zen-event-id", ""),
                "endpoint": self.headers.get("zen-endpoint", ""),
                "target": name,
                "bytes": len(body),
                "sha256": hashlib.sha256(body).hexdigest(),
                "headers": {key.lower(): value for key, value in self.headers.items()},
                "fault": fault,
            }
        )
        return self.answer(500 if down else 401 if fault else 200)

    def check(self, webhook, body):
        """What is wrong with this delivery, or None."""
        try:
            webhook.verify(body, dict(self.headers.items()), json_parse=False)
        except (WebhookVerificationError, ValueError) as error:
            return f"standardwebhooks: {error}"  # ValueError: the library chokes on a malformed header.
        if self.headers.get("webhook-id") != self.headers.get("zen-event-id"):
            return "webhook-id and zen-event-id differ"
        return None

    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


class Target(ThreadingHTTPServer):
    """Listens for egresses that present a certificate of the lab's CA."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, options, private_key, secrets):
        host, port = options.listen.rsplit(":", 1)
        super().__init__((host, int(port)), Deliveries)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(options.client_ca)
        load_cert_chain(context, options.certificate, private_key)
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.webhooks = {name: Webhook(secret) for name, secret in secrets.items()}
        self.flaky_down = options.flaky_down
        self.output = threading.Lock()

    def report(self, line):
        with self.output:
            print(json.dumps(line), flush=True)

    def handle_error(self, request, client_address):
        print(f"{client_address}: {sys.exc_info()[1]!r}", file=sys.stderr, flush=True)


def load_cert_chain(context, certificate, private_key):
    """The ssl module takes keys from files only: this one is in memory, and gone afterwards."""
    with open(os.memfd_create("private-key"), "wb", buffering=0) as file:
        file.write(private_key.encode())
        context.load_cert_chain(certificate, f"/proc/self/fd/{file.fileno()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listen", required=True, help="host:port")
    parser.add_argument("--certificate", required=True, help="PEM chain of this target")
    parser.add_argument("--client-ca", required=True, help="CA that client certificates must come from")
    parser.add_argument("--flaky-down", required=True, help="while this file is there, the target flaky answers 500")
    options = parser.parse_args()
    given = json.load(sys.stdin)
    target = Target(options, given["private_key"], given["secrets"])
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=target.shutdown).start())
    target.serve_forever(poll_interval=0.2)


if __name__ == "__main__":
    main()
