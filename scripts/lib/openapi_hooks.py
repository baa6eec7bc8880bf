"""Hooks for schemathesis: credentials for every operation, and webhooks that pass verification.

Without them, almost every generated request would be answered with 401 or 404. Choices are derived from the generated
value and never random, so that schemathesis can replay and shrink a case.
"""

import hashlib
import hmac
import os
from urllib.parse import urlsplit

import schemathesis
from requests.auth import AuthBase

MANAGEMENT_KEY = os.environ["MANAGEMENT_API_KEY"]
ACME_SECRET = os.environ["ACME_SECRET"].encode()
GLOBEX_TOKEN = os.environ["GLOBEX_TOKEN"]
EVENT_IDS = os.environ["EVENT_IDS"].split()
INTEGRATION_IDS = os.environ["INTEGRATION_IDS"].split()


class Credentials(AuthBase):
    """Signs requests as a provider would, over the bytes that are sent."""

    def __call__(self, request):
        path = urlsplit(request.url).path
        if path.endswith("/webhooks/acme"):
            body = request.body or b""
            if isinstance(body, str):
                body = body.encode()
            if isinstance(body, bytes):
                request.headers["x-acme-signature"] = hmac.new(ACME_SECRET, body, hashlib.sha256).hexdigest()
        elif path.endswith("/webhooks/globex"):
            request.headers["x-globex-token"] = GLOBEX_TOKEN
        elif "/webhooks/" not in path:
            request.headers["x-internal-api-key"] = MANAGEMENT_KEY
        return request


schemathesis.auth.set_from_requests(Credentials())


def choice(value, options):
    """Returns one of the options, always the same for the same value."""
    digest = hashlib.sha256(repr(value).encode()).digest()
    return options[digest[0] % len(options)]


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """Replaces most routes and ids of events and integrations by existing ones."""
    if not path_parameters:
        return path_parameters
    if "route" in path_parameters:
        path_parameters["route"] = choice(path_parameters["route"], ["acme", "acme", "globex", path_parameters["route"]])
    path = context.operation.path if context.operation else ""
    for part, ids in [("/events/", EVENT_IDS), ("/integrations/", INTEGRATION_IDS)]:
        if "id" in path_parameters and part in path and ids:
            path_parameters["id"] = choice(path_parameters["id"], [*ids, path_parameters["id"]])
    return path_parameters


@schemathesis.hook
def map_body(context, body):
    """Wraps some generated bodies in webhooks with all fields that Acme or Globex must send."""
    if not (context.operation and "/webhooks/" in context.operation.path and isinstance(body, dict)):
        return body
    wrapped = {
        "acme": {"eventId": hashlib.sha256(repr(body).encode()).hexdigest(), "eventType": "order.created",
                 "occurredAt": "2026-01-02T03:04:05Z", "data": body},
        "globex": {"id": hashlib.sha256(repr(body).encode()).hexdigest(), "type": "asset.moved",
                   "timestamp": "2026-01-02T03:04:05Z", "resource": {"id": "r-1", "was": body}},
    }
    return choice(body, [wrapped["acme"], wrapped["globex"], body])
