//! The rules about destinations.

use super::CelRule;

// The URL.

pub(crate) const URL_ABSOLUTE: CelRule = CelRule::new(
    "isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != ''",
    "must be an absolute http or https URL with a host, such as https://orders.example.com/hooks",
);

pub(crate) const URL_ASCII: CelRule = CelRule::new(
    "self.matches('^[!-~]+$')",
    "must be ASCII without spaces: write an international host name in its xn-- form and percent-encode the rest",
);

pub(crate) const URL_USERINFO: CelRule = CelRule::new(
    "!self.matches('^[^/?#]*//[^/?#]*@')",
    "must not contain a user name or a password: use auth.basic",
);

pub(crate) const URL_FRAGMENT: CelRule = CelRule::new(
    "!self.contains('#')",
    "must not contain a fragment: '#' and the text after it are never sent",
);

pub(crate) const URL_PORT: CelRule = CelRule::new(
    "!isURL(self) || url(self).getPort() == '' || (size(url(self).getPort()) <= 5 && \
     int(url(self).getPort()) >= 1 && int(url(self).getPort()) <= 65535)",
    "must have a port between 1 and 65535, or none",
);

// URL libraries read 127.1, 0x7f.0.0.1 and 2130706433 as addresses; a reader of the object should not have to. The host
// is matched within the URL, because CEL cannot estimate the cost of a host that a function returns: it has no known
// length.
pub(crate) const URL_ADDRESS: CelRule = CelRule::new(
    "!self.matches('^[^/?#]*//([^/?#]*[.])?([0-9]+|0[xX][0-9a-fA-F]*)[.]?(:[0-9]*)?([/?#]|$)') || \
     self.matches('^[^/?#]*//((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])[.]){3}\
(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(:[0-9]*)?([/?#]|$)')",
    "must have a DNS name or a complete IP address such as 192.0.2.10 as its host",
);

// Retries and signatures.

pub(crate) const RETRY_DELAYS: CelRule = CelRule::new(
    "self.initialDelaySeconds <= self.maxDelaySeconds",
    "must not be more than maxDelaySeconds: lower it or raise maxDelaySeconds",
)
.at_field(".initialDelaySeconds");

pub(crate) const PREVIOUS_SIGNING: CelRule = CelRule::new(
    "!has(self.previousSigningSecretRef) || has(self.signingSecretRef)",
    "requires signingSecretRef: set it to the new secret",
)
.at_field(".previousSigningSecretRef");

// What is requested, and which events.

pub(crate) const ONE_TARGET: CelRule =
    CelRule::new("has(self.url) != has(self.service)", "must be set, or service instead of it; not both")
        .at_field(".url");

pub(crate) const SERVICE_PATH: CelRule = CelRule::pattern(
    "^/([!-\"$&-Z^-~]|%[0-9a-fA-F]{2})*$",
    "must begin with '/' and be ASCII without spaces, '#', backslashes and brackets; percent-encode the rest",
);

pub(crate) const EVENT_TYPES: CelRule = CelRule::each_pattern(
    "^!?[^!]",
    "must be patterns of event types, such as order.*, or !order.deleted to leave events out",
);

// Headers.

/// The value of a header, which neither begins nor ends with a space.
pub(crate) const HEADER_VALUE: CelRule = CelRule::pattern(
    "^[!-~]([ -~]*[!-~])?$",
    "must be visible ASCII, with spaces only between other characters",
);

pub(crate) const HEADER_PREFIX: CelRule =
    CelRule::pattern("^[!-~][ -~]*$", "must be visible ASCII, with spaces only after other characters");

pub(crate) const ONE_VALUE: CelRule = CelRule::new(
    "has(self.value) != has(self.valueFrom)",
    "must be set, or valueFrom instead of it; not both",
)
.at_field(".value");

pub(crate) const PREFIX_OF_SECRET: CelRule = CelRule::new(
    "!has(self.prefix) || has(self.valueFrom)",
    "must not be set unless valueFrom is: write it into value",
)
.at_field(".prefix");

/// The headers that a connection, the length of a body or Grapnel itself defines.
macro_rules! reserved_header {
    () => {
        concat!(
            "connection|expect|host|http2-settings|keep-alive|proxy-.*|te|trailers?|transfer-encoding|upgrade|",
            "content-(encoding|length|type)|cdn-loop|traceparent|user-agent|webhook-.*|grapnel-.*|",
            "x-(correlation-id|delivery-attempt|event-id|event-type|external-event-id|integration-provider)"
        )
    };
}

pub(crate) const RESERVED_HEADER: CelRule = CelRule::not_pattern(
    concat!("^(?i)(", reserved_header!(), ")$"),
    "must not be a header that the connection or Grapnel sets, such as host, content-type, x-event-id or webhook-id",
);

pub(crate) const RESERVED_HEADERS: CelRule = CelRule::none_pattern(
    concat!("^(?i)(", reserved_header!(), ")$"),
    "must not contain a header that the connection or Grapnel sets, such as host, content-type, x-event-id or webhook-id",
);

pub(crate) const FORWARDED_NAMES: CelRule = CelRule::each_pattern(
    "^[-A-Za-z0-9_.]{1,64}$",
    "must be header names: letters, digits, '-', '_' and '.'",
);

pub(crate) const FORWARDED_SECRETS: CelRule = CelRule::none_pattern(
    "^(?i)(authorization|cookie|x-internal-api-key)$",
    "must not contain authorization, cookie or x-internal-api-key: their values are not stored",
);

pub(crate) const HEADERS_DIFFER: CelRule = CelRule::new(
    "!has(self.headers) || self.headers.all(header, self.headers.exists_one(other, \
     other.name.lowerAscii() == header.name.lowerAscii()))",
    "must have different names: the case of their letters does not matter",
)
.at_field(".headers");

pub(crate) const ONE_AUTHORIZATION: CelRule = CelRule::new(
    "!has(self.auth) || !has(self.headers) || !self.headers.exists(header, header.name.lowerAscii() == 'authorization')",
    "must not contain Authorization when auth is set: auth sets it",
)
.at_field(".headers");

pub(crate) const CLOUD_EVENT_HEADERS: CelRule = CelRule::new(
    "!has(self.deliver) || self.deliver != 'cloudevents-binary' || ((!has(self.headers) || \
     !self.headers.exists(header, header.name.lowerAscii().startsWith('ce-'))) && (!has(self.forwardHeaders) || \
     !self.forwardHeaders.exists(name, name.lowerAscii().startsWith('ce-'))))",
    "must not be cloudevents-binary when headers or forwardHeaders contain a name that begins with ce-: Grapnel sets these",
)
.at_field(".deliver");

// Authentication and TLS.

pub(crate) const ONE_AUTH: CelRule =
    CelRule::new("has(self.basic) != has(self.oauth2)", "must have basic or oauth2, and not both");

pub(crate) const SCOPES: CelRule = CelRule::each_pattern(
    "^[!#-Z^-~]+$",
    "must be scopes: visible ASCII without spaces, quotes, backslashes and brackets",
);

pub(crate) const TLS_ON_HTTPS: CelRule = CelRule::new(
    "!has(self.tls) || (has(self.url) && self.url.matches('^(?i)https:')) || \
     (has(self.service) && self.service.scheme == 'https')",
    "must not be set unless deliveries are sent over https",
)
.at_field(".tls");

pub(crate) const SERVER_NAME: CelRule = CelRule::pattern(
    "^[a-zA-Z0-9_]([-a-zA-Z0-9_]*[a-zA-Z0-9_])?([.][a-zA-Z0-9_]([-a-zA-Z0-9_]*[a-zA-Z0-9_])?)*$",
    "must be a DNS name",
);
