"""What disturbs a neighbour in scripts/check-isolation. Each command runs until it is stopped, and prints a line once it is in
effect. It uses only Python's standard library.

Usage: offender.py COMMAND ARGUMENT…

  send URL SECRET RATE BYTES     send signed events of the provider acme; RATE 0 sends as fast as it can
  hang PORT SECONDS              a receiver that answers each request after so many seconds
  reader URL KEY COUNT           COUNT clients that read this management URL without pause
  http2-idle PORT PATH COUNT     COUNT HTTP/2 connections that make one request and answer pings from then on
  http2-unread PORT PATH COUNT   COUNT HTTP/2 connections with 256 requests each and a window of 0 bytes
  http1-unread PORT PATH COUNT   COUNT HTTP/1.1 connections that request and never read
  headers PORT COUNT             COUNT connections that send 63 KB of a header that does not end
  bodies PORT PATH BYTES COUNT   COUNT requests whose body stops before its last byte
  delay PORT HOST PORT SECONDS   a proxy in front of a service, behind which it is so far away
  certificates ADDRESS DIRECTORY URL RATE
                                 a host of certificates at port 443 of this address, with the certificate of the server and that of the
                                 signer in the directory. It answers for certificates of neighbours (NEIGHBOUR-…) alone and is silent
                                 otherwise. And unsigned webhooks to the URL of a PayPal route that name other certificates there

Connections to PORT come from 127.0.0.2, and are opened again when the server closes them. The neighbour's come from 127.0.0.1.
"""

import asyncio
import datetime
import hashlib
import hmac
import itertools
import json
import socket
import ssl
import struct
import sys
import urllib.parse

SOURCE = "127.0.0.2"
# Connections that one command opens at the same time.
OPENING = 64
REOPEN_SECONDS = 0.5
# From linux/tcp_states.h.
TCP_ESTABLISHED = 1


def http2_frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def http2_get(stream, path):
    """A HEADERS frame: GET by index, http by index, and path and authority as literals without Huffman code."""
    block = b"\x82\x86" + b"\x04" + bytes((len(path),)) + path.encode() + b"\x01\x09127.0.0.1"
    return http2_frame(0x1, 0x5, stream, block)


def http2_preface(window):
    settings = http2_frame(0x4, 0, 0, struct.pack(">HI", 0x4, window))
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings


async def answer_pings(reader, writer):
    """Reads frames until the connection ends; acknowledges settings and pings, and ignores all else."""
    while True:
        head = await reader.readexactly(9)
        payload = await reader.readexactly(int.from_bytes(head[:3]))
        kind, flags = head[3], head[4]
        if kind == 0x4 and not flags & 1:
            writer.write(http2_frame(0x4, 1, 0))
        elif kind == 0x6 and not flags & 1:
            writer.write(http2_frame(0x6, 1, 0, payload))


async def http2_idle(reader, writer, path):
    writer.write(http2_preface(65535) + http2_get(1, path))
    await answer_pings(reader, writer)


async def http2_unread(reader, writer, path):
    requests = b"".join(http2_get(1 + 2 * number, path) for number in range(256))
    writer.write(http2_preface(0) + requests)
    await answer_pings(reader, writer)


async def silent(_reader, writer, data):
    """Sends, and then waits for the server to close without reading an answer."""
    writer.transport.pause_reading()
    writer.write(data)
    connection = writer.get_extra_info("socket")
    # The first byte is the state of the connection.
    while connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_ESTABLISHED:
        await asyncio.sleep(1)


async def hold(count, port, behaviour):
    """Keeps connections with this behaviour open, and prints how many are."""
    opened, opening = 0, asyncio.Semaphore(OPENING)

    async def one():
        nonlocal opened
        while True:
            try:
                async with opening:
                    dialed = asyncio.open_connection("127.0.0.1", port, local_addr=(SOURCE, 0))
                    reader, writer = await asyncio.wait_for(dialed, 5)
                opened += 1
                try:
                    await behaviour(reader, writer)
                finally:
                    opened -= 1
                    writer.close()
            except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
                pass
            await asyncio.sleep(REOPEN_SECONDS)

    clients = [asyncio.create_task(one()) for _ in range(count)]
    while clients:
        await asyncio.sleep(5)
        print(f"{opened} of {count} connections are open", flush=True)


async def request(url, head, body=b""):
    """One HTTP/1.1 request on a connection of its own; returns the status."""
    parts = urllib.parse.urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [head.format(target=target), f"host: {parts.netloc}", "connection: close", f"content-length: {len(body)}"]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    answer = await reader.read()
    writer.close()
    return int(answer.split(b" ", 2)[1])


async def send(url, secret, rate, size):
    print("sending", flush=True)
    for number in itertools.count():
        event = {"eventId": f"offender-{number}", "eventType": "order.created", "occurredAt": "2026-01-02T03:04:05Z"}
        body = json.dumps(event | {"data": {"text": "x" * size}}).encode()
        signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        head = f"POST {{target}} HTTP/1.1\r\ncontent-type: application/json\r\nx-acme-signature: {signature}"
        try:
            await request(url, head, body)
        except (OSError, IndexError):
            await asyncio.sleep(REOPEN_SECONDS)
        if rate:
            await asyncio.sleep(1 / rate)


async def read(url, key, count):
    async def one():
        while True:
            try:
                await request(url, f"GET {{target}} HTTP/1.1\r\nx-internal-api-key: {key}")
            except (OSError, IndexError):
                await asyncio.sleep(REOPEN_SECONDS)

    print(f"{count} readers", flush=True)
    await asyncio.gather(*(one() for _ in range(count)))


async def certificates(address, directory, url, rate):
    with open(f"{directory}/paypal.pem", "rb") as file:
        of_signer = file.read()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(f"{directory}/server.pem", f"{directory}/server.key")

    async def answer(reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if b"/NEIGHBOUR-" not in head.split(b"\r\n", 1)[0]:
                    await reader.read()
                    return
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(of_signer), of_signer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, address, 443, ssl=tls)
    print("listening", flush=True)
    body = json.dumps({"id": "WH-1", "event_type": "A.B", "create_time": "2026-01-02T03:04:05Z"}).encode()
    waiting = set()
    if not rate:
        await server.serve_forever()
    for number in itertools.count():
        headers = {
            "content-type": "application/json",
            "paypal-auth-algo": "SHA256withRSA",
            "paypal-transmission-id": f"{number}",
            "paypal-transmission-time": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "paypal-transmission-sig": "AAAA",
            "paypal-cert-url": f"https://api.paypal.com/v1/notifications/certs/CERT-{number}",
        }
        lines = [f"{name}: {value}" for name, value in headers.items()]
        unsigned = asyncio.create_task(request(url, "\r\n".join(["POST {target} HTTP/1.1", *lines]), body))
        waiting.add(unsigned)
        unsigned.add_done_callback(lambda task: (waiting.discard(task), task.exception()))
        await asyncio.sleep(1 / rate)
    server.close()


async def delay(port, host, target, seconds):
    async def carry(reader, writer):
        on_the_way = asyncio.Queue()

        async def deliver():
            while True:
                due, data = await on_the_way.get()
                await asyncio.sleep(due - loop.time())
                if not data:
                    writer.close()
                    return
                writer.write(data)
                await writer.drain()

        delivering = asyncio.create_task(deliver())
        try:
            while data := await reader.read(65536):
                on_the_way.put_nowait((loop.time() + seconds, data))
        except OSError:
            pass
        on_the_way.put_nowait((loop.time() + seconds, b""))
        await asyncio.wait([delivering])

    async def forward(reader, writer):
        far_reader, far_writer = await asyncio.open_connection(host, target)
        await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer))

    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(forward, "127.0.0.1", port)
    print("listening", flush=True)
    await server.serve_forever()


async def hang(port, seconds):
    async def answer(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                await reader.readexactly(int(lengths[0].split(b":")[1]) if lengths else 0)
                await asyncio.sleep(seconds)
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    print("listening", flush=True)
    await server.serve_forever()


def main(command, *arguments):
    if command == "send":
        url, secret, rate, size = arguments
        return send(url, secret, float(rate), int(size))
    if command == "hang":
        return hang(int(arguments[0]), float(arguments[1]))
    if command == "delay":
        port, host, target, seconds = arguments
        return delay(int(port), host, int(target), float(seconds))
    if command == "reader":
        return read(arguments[0], arguments[1], int(arguments[2]))
    if command == "certificates":
        address, directory, url, rate = arguments
        return certificates(address, directory, url, float(rate))
    port, count = int(arguments[0]), int(arguments[-1])
    if command == "http2-idle":
        return hold(count, port, lambda reader, writer: http2_idle(reader, writer, arguments[1]))
    if command == "http2-unread":
        return hold(count, port, lambda reader, writer: http2_unread(reader, writer, arguments[1]))
    if command == "http1-unread":
        data = f"GET {arguments[1]} HTTP/1.1\r\nhost: a\r\n\r\n".encode() * 64
    elif command == "headers":
        data = b"GET / HTTP/1.1\r\nhost: a\r\nx-long: " + b"x" * 63_000
    elif command == "bodies":
        path, size = arguments[1], int(arguments[2])
        head = f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {size}\r\n\r\n"
        data = head.encode() + b"x" * (size - 1)
    else:
        sys.exit(f"unknown command {command}")
    return hold(count, port, lambda reader, writer: silent(reader, writer, data))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        pass
