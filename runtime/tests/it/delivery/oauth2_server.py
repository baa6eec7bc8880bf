"""An OAuth 2.0 authorization server and a receiver that its tokens open, by Authlib. PORT and LIFETIME are defined before this text."""

import os
import time

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

from authlib.integrations.flask_oauth2 import AuthorizationServer, ResourceProtector
from authlib.oauth2.rfc6749 import ClientMixin, TokenMixin, grants
from authlib.oauth2.rfc6750 import BearerTokenValidator
from authlib.oauth2.rfc7009 import RevocationEndpoint
from flask import Flask, jsonify, request

METHODS = ["client_secret_basic", "client_secret_post"]


class Client(ClientMixin):
    """Its id is the only way in which it may authenticate."""

    def __init__(self, client_id):
        self.client_id = client_id

    def get_client_id(self):
        return self.client_id

    def get_allowed_scope(self, scope):
        return scope if scope == "orders.write" else ""

    def check_client_secret(self, client_secret):
        return client_secret == "client-secret-90aa"

    def check_endpoint_auth_method(self, method, endpoint):
        return method == self.client_id or endpoint == "revocation"

    def check_grant_type(self, grant_type):
        return grant_type == "client_credentials"


class Token(TokenMixin):
    def __init__(self, fields):
        self.fields = fields
        self.ends_at = time.time() + fields["expires_in"]
        self.was_revoked = False

    def check_client(self, client):
        return True

    def get_scope(self):
        return self.fields["scope"]

    def is_expired(self):
        return time.time() >= self.ends_at

    def is_revoked(self):
        return self.was_revoked


class ClientCredentials(grants.ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = METHODS


class Revocation(RevocationEndpoint):
    CLIENT_AUTH_METHODS = METHODS

    def query_token(self, token_string, token_type_hint):
        return tokens.get(token_string)

    def revoke_token(self, token, request):
        token.was_revoked = True


class Validator(BearerTokenValidator):
    def authenticate_token(self, token_string):
        return tokens.get(token_string)


clients = {method: Client(method) for method in METHODS}
tokens = {}
requests = []
app = Flask(__name__)
app.config["OAUTH2_TOKEN_EXPIRES_IN"] = {"client_credentials": LIFETIME}


def save_token(token, _request):
    tokens[token["access_token"]] = Token(token)


server = AuthorizationServer(app, query_client=clients.get, save_token=save_token)
server.register_grant(ClientCredentials)
server.register_endpoint(Revocation)
protector = ResourceProtector()
protector.register_token_validator(Validator())


@app.post("/token")
def token():
    return server.create_token_response()


@app.post("/revoke")
def revoke():
    return server.create_endpoint_response(Revocation.ENDPOINT_NAME)


@app.post("/hooks")
@protector("orders.write")
def hooks():
    return "taken"


@app.after_request
def record(answer):
    if request.path == "/hooks":
        used = request.headers.get("authorization", "").removeprefix("Bearer ")
        requests.append({"id": request.headers.get("webhook-id"), "token": used, "status": answer.status_code})
    return answer


@app.get("/requests")
def recorded():
    return jsonify(requests)


app.run(host="127.0.0.1", port=PORT, threaded=True)
