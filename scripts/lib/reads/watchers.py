"""Watches the events of an installation as many people would, and counts what they are told.

Usage: watchers.py STREAM_URL KEY WATCHERS SECONDS

Opens WATCHERS streams of events, one of which does not read what it is sent, and a new one when one ends. Prints one line of JSON: events, gaps,
streams, and answers that were no success. It uses only Python's standard library.
"""

import asyncio
import json
import sys
import time
import urllib.parse

LARGEST_READ = 1 << 16
PATIENCE_SECONDS = 10


async def watch(parsed, key, end, counts, reads):
    while time.monotonic() < end:
        reader, writer = await asyncio.open_connection(parsed.hostname, parsed.port)
        request = f"GET {parsed.path} HTTP/1.1\r\nhost: {parsed.netloc}\r\nx-internal-api-key: {key}\r\naccept: text/event-stream\r\n\r\n"
        writer.write(request.encode())
        status = await asyncio.wait_for(reader.readline(), PATIENCE_SECONDS)
        if b" 200 " not in status:
            counts["failed"] += 1
            writer.close()
            await asyncio.sleep(1)
            continue
        counts["streams"] += 1
        if not reads:
            writer.transport.pause_reading()
            await asyncio.sleep(max(0, end - time.monotonic()))
        while (left := end - time.monotonic()) > 0:
            try:
                chunk = await asyncio.wait_for(reader.read(LARGEST_READ), left)
            except TimeoutError:
                break
            if not chunk:
                break
            counts["events"] += chunk.count(b"event: event")
            counts["gaps"] += chunk.count(b"event: gap")
        writer.close()


async def main():
    url, key, watchers, seconds = sys.argv[1:]
    parsed, end = urllib.parse.urlsplit(url), time.monotonic() + float(seconds)
    counts = {"events": 0, "gaps": 0, "streams": 0, "failed": 0}
    await asyncio.gather(*(watch(parsed, key, end, counts, number > 0) for number in range(int(watchers))))
    print(json.dumps(counts))


if __name__ == "__main__":
    asyncio.run(main())
