"""A receiver of webhooks that verifies Standard Webhooks signatures, with code that it shares with nothing else.

Usage: receiver.py PORT SECRET OUTPUT

Answers 401 to a request below /signed/ whose signature is not valid and 204 to all others, signed or not. Appends one line
of JSON to OUTPUT for each request. It uses only Python's standard library.
"""

import base64
import hashlib
import hmac
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE_SECONDS = 300
BODY_LIMIT = 1 << 20


def signature_verdict(headers, body, secret):
    """Checks what Standard Webhooks requires: the age, and one v1 signature over id, timestamp and body."""
    message_id, timestamp = headers.get("webhook-id"), headers.get("webhook-timestamp")
    signatures = headers.get("webhook-signature")
    if not (message_id and timestamp and signatures):
        return "missing"
    if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        return "too old"
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    for candidate in signatures.split():
        version, _, value = candidate.partition(",")
        if version == "v1" and hmac.compare_digest(base64.b64encode(expected), value.encode()):
            return "valid"
    return "invalid"


def handler(secret, output):
    class Receiver(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10

        def do_POST(self):
            length = int(self.headers.get("content-length", 0))
            if length > BODY_LIMIT:
                return self.answer(413)
            body = self.rfile.read(length)
            verdict = signature_verdict(self.headers, body, secret)
            status = 401 if self.path.startswith("/signed/") and verdict != "valid" else 204
            record = {
                "path": self.path,
                "status": status,
                "signature": verdict,
                "webhookId": self.headers.get("webhook-id"),
                "webhookTimestamp": self.headers.get("webhook-timestamp"),
                "webhookSignature": self.headers.get("webhook-signature"),
                "eventId": self.headers.get("x-event-id"),
                "userAgent": self.headers.get("user-agent"),
                "body": body.decode(errors="replace"),
            }
            with open(output, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            return self.answer(status)

        def answer(self, status):
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            """Requests are only logged to the output file."""

    return Receiver


if __name__ == "__main__":
    port, signing_secret, output_path = sys.argv[1:]
    ThreadingHTTPServer(("127.0.0.1", int(port)), handler(signing_secret, output_path)).serve_forever()
