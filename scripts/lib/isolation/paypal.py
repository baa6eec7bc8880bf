"""A neighbour whose webhooks are signed with a certificate, as PayPal signs them: sends them, receives their deliveries, and measures both.

Usage: paypal.py URL KEY WEBHOOK_ID CERTIFICATE SINK RATE SECONDS

URL is the route, KEY the file of the private key that the certificate belongs to, CERTIFICATE the name of the certificate at PayPal, and SINK the
address to receive deliveries on. Prints a report with the fields of `grapnel-loadtest run --json` that scripts/check-isolation reads. It uses
only Python's standard library and openssl.
"""

import asyncio
import base64
import datetime
import json
import secrets
import subprocess
import sys
import time
import urllib.parse
import zlib

# How long to wait for deliveries after the last answer.
SETTLE_SECONDS = 60
CLIENTS = 64


def percentile(values, part):
    """The value below which a part of the values is.

    >>> percentile([3, 1, 2, 4], 0.5)
    2
    >>> percentile([], 0.99)
    0.0
    """
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * part // 1) - 1)] if ordered else 0.0


def sign(number, run, key, webhook_id, certificate):
    """Returns the headers and the body of an event."""
    event_id, at = f"{run}-{number}", datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    event = {"id": event_id, "event_type": "PAYMENT.SALE.COMPLETED", "create_time": at, "resource": {"id": event_id}}
    body = json.dumps(event).encode()
    message = f"{event_id}|{at}|{webhook_id}|{zlib.crc32(body)}".encode()
    signed = subprocess.run(["openssl", "dgst", "-sha256", "-sign", key], input=message, capture_output=True, check=True)
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "paypal-auth-algo": "SHA256withRSA",
        "paypal-transmission-id": event_id,
        "paypal-transmission-time": at,
        "paypal-transmission-sig": base64.b64encode(signed.stdout).decode(),
        "paypal-cert-url": f"https://api.paypal.com/v1/notifications/certs/{certificate}",
    }
    return event_id, headers, body


class Ledger:
    def __init__(self):
        self.due, self.accepted, self.delivered, self.sent = {}, {}, {}, 0

    async def receive(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                body = await reader.readexactly(int(lengths[0].split(b":")[1]) if lengths else 0)
                event_id = json.loads(body).get("externalEventId")
                if event_id in self.due:
                    self.delivered.setdefault(event_id, time.monotonic() - self.due[event_id])
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        except (OSError, ValueError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def send(parts, queue, ledger):
    """One client: sends what is due on a connection that stays open."""
    connection = None
    while (event := await queue.get()) is not None:
        event_id, headers, body = event
        lines = [f"POST {parts.path} HTTP/1.1", f"host: {parts.netloc}", *(f"{name}: {value}" for name, value in headers.items())]
        ledger.sent += 1
        try:
            if connection is None:
                connection = await asyncio.open_connection(parts.hostname, parts.port)
            reader, writer = connection
            writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            lengths = [line for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
            await reader.readexactly(int(lengths[0].split(b":")[1]) if lengths else 0)
            if head.split(b" ", 2)[1] in (b"200", b"202"):
                ledger.accepted[event_id] = time.monotonic() - ledger.due[event_id]
        except (OSError, IndexError, asyncio.IncompleteReadError):
            connection = None


async def main(url, key, webhook_id, certificate, sink, rate, seconds):
    parts, ledger, queue, run = urllib.parse.urlsplit(url), Ledger(), asyncio.Queue(), secrets.token_hex(6)
    count = int(float(rate) * float(seconds))
    events = [sign(number, run, key, webhook_id, certificate) for number in range(count)]
    host, port = sink.rsplit(":", 1)
    server = await asyncio.start_server(ledger.receive, host, int(port), backlog=1024)
    clients = [asyncio.create_task(send(parts, queue, ledger)) for _ in range(CLIENTS)]
    start = time.monotonic()
    for number, event in enumerate(events):
        due = start + number / float(rate)
        await asyncio.sleep(max(0, due - time.monotonic()))
        ledger.due[event[0]] = due
        queue.put_nowait(event)
    for _ in clients:
        queue.put_nowait(None)
    await asyncio.gather(*clients)
    deadline = time.monotonic() + SETTLE_SECONDS
    while len(ledger.accepted.keys() - ledger.delivered.keys()) > 0 and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    server.close()

    def latencies(values):
        return {"p50": percentile(values, 0.5) * 1000, "p99": percentile(values, 0.99) * 1000}

    report = {
        "scheduledNotSent": count - ledger.sent,
        "sent": ledger.sent,
        "accepted": len(ledger.accepted),
        "deliveries": {"lost": len(ledger.accepted.keys() - ledger.delivered.keys())},
        "latencyMs": {"accept": latencies(ledger.accepted.values()), "endToEnd": latencies(ledger.delivered.values())},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
