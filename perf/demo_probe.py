"""Tries what no listener of a mesh may take: TLS 1.2, and TLS 1.3 without a certificate.

Arguments: HOST:PORT... Prints a JSON line for each: {"address", "tls12", "anonymous"}, true for what was taken.
"""

import json
import socket
import ssl
import sys

TIMEOUT_S = 5
assert ssl.HAS_TLSv1_2 and ssl.HAS_TLSv1_3, "this Python could not try either version"


def takes(address, version):
    """Whether a handshake with this version and no certificate of ours holds until the peer has had its say."""
    host, port = address.rsplit(":", 1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # The question is whom the listener takes, not who it is.
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    try:
        with socket.create_connection((host, int(port)), TIMEOUT_S) as plain:
            with context.wrap_socket(plain) as stream:
                stream.settimeout(TIMEOUT_S)
                stream.sendall(b"GET / HTTP/1.1\r\nhost: probe\r\nconnection: close\r\n\r\n")
                # A refused client learns it with the first read (RFC 8446 section 4.4.2.4).
                return len(stream.recv(1)) == 1
    except (ssl.SSLError, ConnectionError, TimeoutError):
        return False


for address in sys.argv[1:]:
    found = {
        "address": address,
        "tls12": takes(address, ssl.TLSVersion.TLSv1_2),
        "anonymous": takes(address, ssl.TLSVersion.TLSv1_3),
    }
    print(json.dumps(found), flush=True)
