#!/usr/bin/env python3
"""Makes signatures.json: signatures computed with Python's hmac and hashlib and with the cryptography package.

Nothing here is shared with Grapnel's own code. Run it with an output path; the result is committed. ECDSA signatures and RSA keys
are random, so a new run changes them.
"""

import base64
import datetime
import hashlib
import hmac
import json
import sys
import zlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import NameOID

NOW = 1769850000
BODY = '{"id":"e-1","type":"order.created","note":"caf\u00e9 \u4e16\u754c"}'
URL = "https://hooks.example.com/in/shop?tenant=1&x=%20y"

vectors = []


def mac(algorithm, key, message):
    return hmac.new(key, message, algorithm).digest()


def b64(data):
    return base64.b64encode(data).decode()


def vector(name, scheme, secrets, headers, body=BODY, expected="valid", **further):
    encoding = {"bodyEncoding": "utf8", "body": body}
    if isinstance(body, bytes):
        encoding = {"bodyEncoding": "hex", "body": body.hex()}
    vectors.append({
        "kind": "signature", "id": name, "scheme": scheme, "secrets": secrets, "method": "POST", "headers": headers,
        "expected": expected, **encoding, **further,
    })


def hmac_scheme(message="{body}", algorithm="sha256", encoding="hex", **further):
    signature = {"from": "header:x-sig", "encoding": encoding}
    return {"type": "hmac", "hash": algorithm, "message": message, "signature": signature, **further}


def plain():
    secret = "It's a Secret to Everybody"
    for algorithm in ("sha1", "sha256", "sha384", "sha512"):
        for encoding, encode in (("hex", bytes.hex), ("base64", b64)):
            name = f"hmac-{algorithm}-{encoding}"
            signature = encode(mac(algorithm, secret.encode(), BODY.encode()))
            scheme = hmac_scheme(algorithm=algorithm, encoding=encoding)
            vector(name, scheme, [secret], {"x-sig": signature})
            vector(f"{name}-flipped-body", scheme, [secret], {"x-sig": signature}, BODY.replace("e-1", "e-2"), "invalid")
            wrong = encode(mac(algorithm, b"other", BODY.encode()))
            vector(f"{name}-wrong-secret", scheme, [secret], {"x-sig": wrong}, expected="invalid")
            vector(f"{name}-short", scheme, [secret], {"x-sig": signature[:-4]}, expected="invalid")
            vector(f"{name}-missing", scheme, [secret], {}, expected="invalid")
    binary = bytes(range(256))
    vector("hmac-binary-body", hmac_scheme(), [secret], {"x-sig": mac("sha256", secret.encode(), binary).hex()}, binary)
    vector("hmac-empty-body", hmac_scheme(), [secret], {"x-sig": mac("sha256", secret.encode(), b"").hex()}, "")
    long = "k" * 300
    vector("hmac-long-key", hmac_scheme(), [long], {"x-sig": mac("sha256", long.encode(), BODY.encode()).hex()})
    upper = mac("sha256", secret.encode(), BODY.encode()).hex().upper()
    vector("hmac-upper-case-hex", hmac_scheme(), [secret], {"x-sig": upper})
    vector("empty-secret", hmac_scheme(), [""], {"x-sig": mac("sha256", b"", BODY.encode()).hex()}, expected="invalid")
    scheme = hmac_scheme()
    scheme["signature"] = {"from": "headerPrefix:x-sig-", "encoding": "base64"}
    right = b64(mac("sha256", secret.encode(), BODY.encode()))
    vector("header-prefix", scheme, [secret], {"x-sig-1": b64(b"x" * 32), "x-sig-2": right})
    vector("header-prefix-none", scheme, [secret], {"x-sig-1": b64(b"x" * 32)}, expected="invalid")


def keys():
    raw = bytes(range(32))
    message = f"msg_1.{NOW}.{BODY}".encode()
    scheme = {
        "type": "hmac", "key": {"encoding": "base64", "stripPrefix": "whsec_"},
        "message": "{header:webhook-id}.{timestamp}.{body}",
        "signature": {"from": "header:webhook-signature", "separator": " ", "prefix": "v1,", "encoding": "base64"},
        "timestamp": {"from": "header:webhook-timestamp", "toleranceSeconds": 300}, "require": ["header:webhook-id"],
    }
    right = "v1," + b64(mac("sha256", raw, message))
    secret = "whsec_" + b64(raw)

    def send(name, signature=right, now=NOW, expected="valid", secrets=None, **headers):
        sent = {"webhook-id": "msg_1", "webhook-timestamp": str(NOW), "webhook-signature": signature}
        sent.update({key.replace("_", "-"): value for key, value in headers.items()})
        sent = {key: value for key, value in sent.items() if value is not None}
        vector(name, scheme, secrets or [secret], sent, expected=expected, now=now)

    send("list")
    send("list-second", f"v1,{b64(b'y' * 32)} v2,abc {right}")
    send("list-other-version", right.replace("v1,", "v2,"), expected="invalid")
    send("list-without-prefix", secrets=[b64(raw)])
    send("list-rotated", secrets=["whsec_" + b64(b"n" * 32), secret])
    send("list-late", now=NOW + 300)
    send("list-too-late", now=NOW + 301, expected="invalid")
    send("list-early", now=NOW - 300)
    send("list-too-early", now=NOW - 301, expected="invalid")
    send("list-other-id", webhook_id="msg_2", expected="invalid")
    send("list-no-id", webhook_id=None, expected="invalid")
    send("list-other-time", webhook_timestamp=str(NOW + 1), expected="invalid")
    send("list-no-time", webhook_timestamp=None, expected="invalid")
    send("list-time-with-a-point", webhook_timestamp=f"{NOW}.0", expected="invalid")
    scheme = hmac_scheme(key={"encoding": "hex"})
    vector("hex-key", scheme, [raw.hex()], {"x-sig": mac("sha256", raw, BODY.encode()).hex()})


def fields():
    secret = "pdl_ntf_secret"
    for unit, now in (("s", str(NOW)), ("ms", f"{NOW}123")):
        scheme = hmac_scheme("{timestamp}.{body}", timestamp={"from": "field:t", "unit": unit, "toleranceSeconds": 60})
        scheme["signature"] = {"from": "header:x-sig", "separator": ",", "field": "v1"}
        right = mac("sha256", secret.encode(), f"{now}.{BODY}".encode()).hex()
        vector(f"field-{unit}", scheme, [secret], {"x-sig": f"t={now}, v1={right}"}, now=NOW)
        vector(f"field-{unit}-v0", scheme, [secret], {"x-sig": f"t={now},v0={right}"}, expected="invalid", now=NOW)
        vector(f"field-{unit}-no-time", scheme, [secret], {"x-sig": f"v1={right}"}, expected="invalid", now=NOW)
        vector(f"field-{unit}-late", scheme, [secret], {"x-sig": f"t={now},v1={right}"}, expected="invalid", now=NOW + 90)
    scheme = hmac_scheme("{timestamp}.{body}", timestamp={"from": "item:0", "unit": "s", "toleranceSeconds": 60})
    scheme["signature"] = {"from": "header:x-sig", "separator": ","}
    right = mac("sha256", secret.encode(), f"{NOW}.{BODY}".encode()).hex()
    vector("item", scheme, [secret], {"x-sig": f"{NOW},{'0' * 64},{right}"}, now=NOW)
    time = "2026-01-31T09:00:00Z"
    scheme = hmac_scheme("{timestamp}{body}", timestamp={"from": "header:x-time", "unit": "iso8601"})
    right = mac("sha256", secret.encode(), f"{time}{BODY}".encode()).hex()
    vector("iso8601", scheme, [secret], {"x-sig": right, "x-time": time}, now=NOW)


def messages():
    secret = "token"
    sign = lambda message, algorithm="sha256": mac(algorithm, secret.encode(), message.encode()).hex()
    vector("url", hmac_scheme("{method}{url}{body}"), [secret], {"x-sig": sign(f"POST{URL}{BODY}")}, url=URL)
    other = URL.replace("https", "http")
    vector("url-other", hmac_scheme("{method}{url}{body}"), [secret], {"x-sig": sign(f"POST{other}{BODY}")}, url=URL,
           expected="invalid")
    escaped = "https://hooks.example.com/in?next=https%3A%2F%2Fa.example%20b"
    plain_url = "https://hooks.example.com/in?next=https://a.example%20b"
    vector("url-unescaped", hmac_scheme("{url|unescape}{body}"), [secret], {"x-sig": sign(plain_url + BODY)}, url=escaped)
    form = "b=2&a=1&a=0&b=2&c=%C3%A9+x"
    sorted_form = URL + "a0a1b2c\u00e9 x"
    headers = {"content-type": "application/x-www-form-urlencoded", "x-sig": sign(sorted_form, "sha1")}
    scheme = hmac_scheme("{url}{form:sorted}", "sha1")
    vector("sorted-form", scheme, [secret], headers, form, url=URL)
    vector("sorted-form-changed", scheme, [secret], headers, form.replace("b=2", "b=3"), "invalid", url=URL)
    scheme = hmac_scheme("{url}", bodyDigest={"from": "query:sum", "hash": "sha256", "encoding": "hex"})
    with_sum = "https://hooks.example.com/in?sum=" + hashlib.sha256(BODY.encode()).hexdigest()
    headers = {"content-type": "application/json", "x-sig": sign(with_sum)}
    vector("body-digest", scheme, [secret], headers, url=with_sum)
    vector("body-digest-changed", scheme, [secret], headers, BODY + " ", "invalid", url=with_sum)
    ported = {**hmac_scheme("{url}{body}"), "urlPortVariants": True}
    for name, signed in (("with", "https://hooks.example.com:443/in"), ("without", "https://hooks.example.com/in")):
        vector(f"port-{name}", ported, [secret], {"x-sig": sign(signed + BODY)}, url="https://hooks.example.com:443/in")
    body = json.dumps({"a": {"b": "x\\:y/\u00e9"}, "n": 1000, "f": 1.50, "t": True, "s": "?"})
    scheme = hmac_scheme("{json:/a/b}:{json:/n}:{json:/t}:{json:/none}:{query:q}")
    scheme["signature"] = {"from": "json:/s", "encoding": "hex"}
    body = body.replace('"?"', '"%s"' % sign("x\\:y/\u00e9:1000:true::1 2"))
    vector("json-values", scheme, [secret], {}, body, url="https://hooks.example.com/in?q=1%202")
    vector("json-values-changed", scheme, [secret], {}, body.replace("1000", "1001"), "invalid",
           url="https://hooks.example.com/in?q=1%202")
    scheme = hmac_scheme("{body|sha256}")
    vector("filtered", scheme, [secret], {"x-sig": sign(hashlib.sha256(BODY.encode()).hexdigest())})
    scheme = {"type": "digest", "message": "{secret}{body}", "signature": {"from": "header:x-sig"}}
    vector("digest", scheme, [secret], {"x-sig": hashlib.sha256((secret + BODY).encode()).hexdigest()})
    vector("digest-wrong", scheme, [secret], {"x-sig": hashlib.sha256(BODY.encode()).hexdigest()}, expected="invalid")
    scheme = {"type": "token", "signature": {"from": "header:authorization", "prefix": "Bearer "}}
    vector("token", scheme, [secret], {"authorization": "Bearer token"})
    vector("token-wrong", scheme, [secret], {"authorization": "Bearer tokens"}, expected="invalid")
    vector("token-bare", scheme, [secret], {"authorization": "token"}, expected="invalid")
    vector("basic", {"type": "basic"}, ["user:pass"], {"authorization": "Basic " + b64(b"user:pass")})
    vector("basic-wrong", {"type": "basic"}, ["user:pass"], {"authorization": "Basic " + b64(b"user:Pass")}, expected="invalid")


def asymmetric():
    private = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
    public = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    scheme = {
        "type": "ed25519", "key": {"encoding": "hex"}, "message": "{timestamp}{body}",
        "signature": {"from": "header:x-sig", "encoding": "hex"},
        "timestamp": {"from": "header:x-time", "toleranceSeconds": 300},
    }
    signature = private.sign(f"{NOW}{BODY}".encode())
    headers = {"x-sig": signature.hex(), "x-time": str(NOW)}
    vector("ed25519", scheme, [public.hex()], headers, now=NOW)
    flipped = bytes([signature[0] ^ 1]) + signature[1:]
    vector("ed25519-flipped", scheme, [public.hex()], {**headers, "x-sig": flipped.hex()}, expected="invalid", now=NOW)
    vector("ed25519-body", scheme, [public.hex()], headers, BODY + "x", "invalid", now=NOW)
    order = 2**252 + 27742317777372353535851937790883648493
    high = signature[:32] + (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    vector("ed25519-malleable", scheme, [public.hex()], {**headers, "x-sig": high.hex()}, expected="invalid", now=NOW)
    other = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    other = other.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    vector("ed25519-rotated", scheme, [other.hex(), public.hex()], headers, now=NOW)
    vector("ed25519-other-key", scheme, [other.hex()], headers, expected="invalid", now=NOW)

    private = ec.derive_private_key(0x1234567890ABCDEF, ec.SECP256R1())
    public = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    scheme = {
        "type": "ecdsa", "key": {"encoding": "base64"}, "message": "{timestamp}{body}",
        "signature": {"from": "header:x-sig", "encoding": "base64"},
        "timestamp": {"from": "header:x-time", "toleranceSeconds": 300},
    }
    signature = private.sign(f"{NOW}{BODY}\r\n".encode(), ec.ECDSA(hashes.SHA256()))
    headers = {"x-sig": b64(signature), "x-time": str(NOW)}
    vector("ecdsa", scheme, [b64(public)], headers, BODY + "\r\n", now=NOW)
    vector("ecdsa-trimmed", scheme, [b64(public)], headers, BODY, "invalid", now=NOW)
    flipped = signature[:-1] + bytes([signature[-1] ^ 1])
    vector("ecdsa-flipped", scheme, [b64(public)], {**headers, "x-sig": b64(flipped)}, BODY + "\r\n", "invalid", now=NOW)
    other = b64(private.sign(BODY.encode(), ec.ECDSA(hashes.SHA512())))
    vector("ecdsa-other-hash", scheme, [b64(public)], {**headers, "x-sig": other}, BODY + "\r\n", "invalid", now=NOW)


def certificate():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    start = datetime.datetime(2026, 1, 1)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(1).not_valid_before(start).not_valid_after(start + datetime.timedelta(days=3650))
    built = built.add_extension(x509.SubjectAlternativeName([x509.DNSName("sns.amazonaws.com")]), False)
    return key, built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def certified():
    key, pem = certificate()
    _, other_pem = certificate()
    topic = "arn:aws:sns:eu-central-1:123456789012:orders"
    notification = {
        "Type": "Notification", "MessageId": "22b80b92", "TopicArn": topic, "Message": "caf\u00e9\n{}",
        "Timestamp": "2026-01-31T09:00:00.000Z",
        "SigningCertURL": "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0a1b.pem",
    }
    confirmation = {
        **notification, "Type": "SubscriptionConfirmation", "Token": "t-1",
        "SubscribeURL": "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription",
    }

    def sns(name, members, version="2", expected="valid", pem=pem, change=None, secret_topic=topic):
        names = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
        message = "".join(f"{key}\n{members[key]}\n" for key in names if key in members)
        algorithm = hashes.SHA1() if version == "1" else hashes.SHA256()
        signature = key.sign(message.encode(), padding.PKCS1v15(), algorithm)
        body = json.dumps({**members, "SignatureVersion": version, "Signature": b64(signature), **(change or {})})
        vector(name, {"type": "builtin:aws-sns"}, [f"{secret_topic}\n{pem}"], {}, body, expected)

    sns("sns-v2", notification)
    sns("sns-v1", notification, "1")
    sns("sns-subject", {**notification, "Subject": "Created"})
    sns("sns-confirmation", confirmation)
    sns("sns-changed", notification, change={"Message": "other"}, expected="invalid")
    sns("sns-added-subject", notification, change={"Subject": "other"}, expected="invalid")
    sns("sns-other-version", notification, change={"SignatureVersion": "1"}, expected="invalid")
    sns("sns-unknown-version", notification, change={"SignatureVersion": "3"}, expected="invalid")
    sns("sns-other-certificate", notification, pem=other_pem, expected="invalid")
    sns("sns-other-topic", notification, secret_topic=topic + "-2", expected="invalid")

    headers = {
        "paypal-transmission-id": "69cd13f0", "paypal-transmission-time": "2026-01-31T09:00:00Z",
        "paypal-auth-algo": "SHA256withRSA", "paypal-cert-url": "https://api.paypal.com/v1/notifications/certs/CERT-1",
    }
    message = f"69cd13f0|2026-01-31T09:00:00Z|WH-1|{zlib.crc32(BODY.encode())}"
    signature = b64(key.sign(message.encode(), padding.PKCS1v15(), hashes.SHA256()))
    scheme = {"type": "builtin:paypal"}
    sent = {**headers, "paypal-transmission-sig": signature}
    vector("paypal", scheme, [f"WH-1\n{pem}"], sent)
    vector("paypal-changed", scheme, [f"WH-1\n{pem}"], sent, BODY + " ", "invalid")
    vector("paypal-other-webhook", scheme, [f"WH-2\n{pem}"], sent, expected="invalid")
    vector("paypal-other-certificate", scheme, [f"WH-1\n{other_pem}"], sent, expected="invalid")
    vector("paypal-other-time", scheme, [f"WH-1\n{pem}"], {**sent, "paypal-transmission-time": "2026-01-31T09:00:01Z"},
           expected="invalid")
    vector("paypal-other-algorithm", scheme, [f"WH-1\n{pem}"], {**sent, "paypal-auth-algo": "none"}, expected="invalid")
    vector("paypal-missing", scheme, [f"WH-1\n{pem}"], headers, expected="invalid")


def main():
    for make in (plain, keys, fields, messages, asymmetric, certified):
        make()
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        json.dump(vectors, out, indent=1, ensure_ascii=True)
        out.write("\n")


main()
