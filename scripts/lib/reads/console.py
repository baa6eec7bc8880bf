"""Looks at the console as people do, and measures how long its pages and their live parts take.

Usage: console.py CONSOLE_URL KEY TABS SECONDS PATH…

Logs in with the management key, opens TABS tabs, each of which asks for its live part every two seconds, and meanwhile reads every PATH
again and again, as a page and as a live part. Prints one line of JSON: for each path the number of answers and their p50 and p99 in
milliseconds, and the number of answers that were no success. It uses only Python's standard library.
"""

import http.client
import json
import re
import sys
import threading
import time
import urllib.parse

PERIOD_SECONDS = 2
TIMEOUT_SECONDS = 20
FRAGMENT = {"hx-request": "true", "accept-encoding": "gzip"}
PAGE = {"accept-encoding": "gzip"}


class Client:
    """A connection with the cookie of a session."""

    def __init__(self, host, cookie=None):
        self.host, self.cookie = host, cookie
        self.connection = http.client.HTTPConnection(host, timeout=TIMEOUT_SECONDS)

    def request(self, method, path, headers=None, body=None):
        headers = dict(headers or {})
        if self.cookie:
            headers["cookie"] = self.cookie
        try:
            self.connection.request(method, path, body=body, headers=headers)
            response = self.connection.getresponse()
            return response, response.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            raise


def log_in(host, root, key):
    """Returns the cookie of a new session."""
    client = Client(host)
    response, page = client.request("GET", f"{root}/log-in")
    token = re.search(rb'name="csrf" value="([^"]+)"', page)[1].decode()
    first = response.headers.get_all("set-cookie") or []
    fields = urllib.parse.urlencode({"csrf": token, "kind": "key", "credential": key, "next": ""})
    headers = {"content-type": "application/x-www-form-urlencoded", "cookie": "; ".join(c.split(";")[0] for c in first)}
    response, _ = client.request("POST", f"{root}/log-in", headers, fields)
    cookies = response.headers.get_all("set-cookie") or []
    session = [cookie.split(";")[0] for cookie in cookies if not cookie.split(";")[0].endswith("=")]
    assert response.status in (302, 303) and session, f"the log-in was answered {response.status}"
    return "; ".join(session)


def percentile(sorted_values, part):
    """The value below which a part of the values is.

    >>> percentile([1, 2, 3, 4], 0.5)
    2
    >>> percentile([5], 0.99)
    5
    """
    return sorted_values[max(0, -int(-len(sorted_values) * part // 1) - 1)]


def keep_open(client, path, opened_after, end, counts):
    # Tabs are opened one after the other, so they do not ask together.
    time.sleep(opened_after)
    while time.monotonic() < end:
        started = time.monotonic()
        try:
            response, _ = client.request("GET", path, FRAGMENT)
            counts["tabs" if response.status == 200 else "failed"] += 1
        except (OSError, http.client.HTTPException):
            counts["failed"] += 1
        time.sleep(max(0, PERIOD_SECONDS - (time.monotonic() - started)))


def measure(client, path, headers):
    started = time.monotonic()
    try:
        response, _ = client.request("GET", path, headers)
    except (OSError, http.client.HTTPException):
        return None
    return (time.monotonic() - started) * 1000 if response.status == 200 else None


def main():
    url, key, tabs, seconds, *paths = sys.argv[1:]
    parsed = urllib.parse.urlsplit(url)
    root = parsed.path.rstrip("/")
    cookie = log_in(parsed.netloc, root, key)
    end = time.monotonic() + float(seconds)
    counts = {"tabs": 0, "failed": 0}
    for tab in range(int(tabs)):
        client = Client(parsed.netloc, cookie)
        opened_after = PERIOD_SECONDS * tab / int(tabs)
        arguments = (client, root + paths[tab % len(paths)], opened_after, end, counts)
        threading.Thread(target=keep_open, args=arguments, daemon=True).start()
    client = Client(parsed.netloc, cookie)
    times = {(path, kind): [] for path in paths for kind in ("page", "fragment")}
    while time.monotonic() < end:
        for (path, kind), taken in times.items():
            took = measure(client, root + path, PAGE if kind == "page" else FRAGMENT)
            if took is None:
                counts["failed"] += 1
            else:
                taken.append(took)
            # A person reads, too.
            time.sleep(0.02)
    report = [
        {"path": path, "kind": kind, "count": len(taken), "p50Ms": percentile(sorted(taken), 0.5), "p99Ms": percentile(sorted(taken), 0.99)}
        for (path, kind), taken in times.items()
        if taken
    ]
    print(json.dumps({"answers": report, "tabAnswers": counts["tabs"], "failed": counts["failed"]}))


if __name__ == "__main__":
    main()
