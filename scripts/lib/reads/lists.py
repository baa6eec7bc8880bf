"""Reads the lists of the management API with every kind of filter, and measures how long their pages take.

Usage: lists.py API_URL KEY PAGES

API_URL ends with /api/v1. Reads the first page of each list and the page behind its cursor, PAGES times each. Prints one line of JSON: for each list
whether its filter has an index, and the p50 and p99 of both pages in milliseconds. A walked page that is not full must say how far it came. It uses only
Python's standard library.
"""

import http.client
import json
import sys
import time
import urllib.parse

TIMEOUT_SECONDS = 20
PAGE_SIZE = 20

# Filters of GET /events, GET /deliveries and GET /audit-entries in the words of docs/finding.md. INTEGRATION, EVENT, EXTERNAL and the times of a
# window are replaced by those of the history.
INDEXED = [
    "/events?",
    "/events?integration=INTEGRATION",
    "/events?namespace=NAMESPACE",
    "/events?externalEventId=EXTERNAL",
    "/events?receivedFrom=FROM&receivedTo=TO",
    "/events?integration=INTEGRATION&eventType=order.created",
    "/events?integration=INTEGRATION&eventType=none",
    "/events?status=failed",
    "/events?status=pending",
    "/events?status=processed",
    "/events?integration=INTEGRATION&status=processed",
    "/events?status=failed&destination=sink",
    "/events?from=FROM&to=TO",
    "/events?sortBy=occurredAt",
    "/deliveries?",
    "/deliveries?eventId=EVENT",
    "/deliveries?status=failed",
    "/deliveries?integration=INTEGRATION",
    "/deliveries?from=FROM&to=TO",
    "/audit-entries?",
    "/audit-entries?entityType=integration",
    "/audit-entries?entityId=EVENT",
    "/audit-entries?action=webhook.received",
    "/audit-entries?action=replay.requested",
    "/audit-entries?from=FROM&to=TO",
    "/audit-entries?from=FROM&to=TO&action=webhook.received",
    "/replay-requests?",
    "/replays?",
    "/integrations?",
]
WALKED = [
    "/events?provider=none",
    "/events?eventType=none",
    "/events?subject=none",
    "/events?correlationId=none",
    "/events?destination=none",
    "/events?httpStatus=404",
    "/events?integration=INTEGRATION&q=none",
    "/events?integration=INTEGRATION&subject=none",
    "/deliveries?destination=none",
    "/deliveries?httpStatus=404",
    "/deliveries?errorContains=none",
    "/audit-entries?actor=user%3Anobody",
    "/audit-entries?actor=worker&integration=INTEGRATION",
]


def percentile(sorted_values, part):
    """The value below which a part of the values is.

    >>> percentile([1, 2, 3, 4], 0.5)
    2
    """
    return sorted_values[max(0, -int(-len(sorted_values) * part // 1) - 1)]


class Api:
    def __init__(self, url, key):
        parsed = urllib.parse.urlsplit(url)
        self.root, self.key = parsed.path, key
        self.connection = http.client.HTTPConnection(parsed.netloc, timeout=TIMEOUT_SECONDS)

    def get(self, path):
        """Returns the answer and how many milliseconds it took."""
        started = time.monotonic()
        self.connection.request("GET", self.root + path, headers={"x-internal-api-key": self.key})
        response = self.connection.getresponse()
        body = response.read()
        took = (time.monotonic() - started) * 1000
        assert response.status == 200, f"{path} was answered {response.status}: {body[:300]}"
        return json.loads(body), took


def honest(answer):
    """Whether a page is full, the last one, or says how far it came."""
    meta = answer["meta"]
    return len(answer["data"]) == PAGE_SIZE or not meta.get("nextCursor") or meta.get("scannedThrough") is not None


def measure(api, path, pages):
    """Returns the times of first pages, of those behind the cursor, and whether all were honest."""
    first, further, is_honest = [], [], True
    for _ in range(pages):
        answer, took = api.get(f"{path}&pageSize={PAGE_SIZE}")
        first.append(took)
        is_honest = is_honest and honest(answer)
        cursor = answer["meta"].get("nextCursor")
        if cursor:
            answer, took = api.get(f"{path}&pageSize={PAGE_SIZE}&cursor={urllib.parse.quote(cursor)}")
            further.append(took)
            is_honest = is_honest and honest(answer)
    return sorted(first), sorted(further), is_honest


def main():
    url, key, pages = sys.argv[1:]
    api = Api(url, key)
    newest = api.get("/events?pageSize=1")[0]["data"][0]
    integration = api.get("/integrations?")[0]["data"][0]
    day = newest["receivedAt"][:10]
    values = {
        "INTEGRATION": newest["integrationId"],
        "NAMESPACE": integration["namespace"],
        "EXTERNAL": urllib.parse.quote(newest["externalEventId"] or ""),
        "EVENT": newest["id"],
        "FROM": f"{day}T00:00:00Z",
        "TO": f"{day}T23:59:59Z",
    }
    report = []
    for is_indexed, paths in ((True, INDEXED), (False, WALKED)):
        for path in paths:
            filled = path
            for name, value in values.items():
                filled = filled.replace(f"={name}", f"={value}")
            first, further, is_honest = measure(api, filled, int(pages) if is_indexed else max(3, int(pages) // 20))
            times = {"p50Ms": percentile(first, 0.5), "p99Ms": percentile(first, 0.99)}
            if further:
                times |= {"furtherP50Ms": percentile(further, 0.5), "furtherP99Ms": percentile(further, 0.99)}
            report.append({"list": path.rstrip("?"), "isIndexed": is_indexed, "isHonest": is_honest, **times})
    print(json.dumps(report))


if __name__ == "__main__":
    main()
