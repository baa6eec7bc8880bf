//! The OpenAPI 3.1 document of a port.
//!
//! The management routes are described where they are handled. This file has the two that are handled elsewhere, and
//! all that is common to many routes: the key, the refusals that any of them can answer, the headers.

use utoipa::openapi::header::Header;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    Content, InfoBuilder, LicenseBuilder, ObjectBuilder, OpenApi, OpenApiBuilder, Ref, RefOr,
    ResponseBuilder, Schema, Type,
};
use utoipa::{OpenApi as _, ToSchema};

use crate::http::KEY_HEADER;
use crate::http::envelope::{Envelope, ErrorEnvelope, NoMeta};
use crate::ingress::WebhookAccepted;
use crate::management::health::HealthReport;
use crate::management::{routes, sink_route};

/// Where all routes of the document are.
pub const BASE_PATH: &str = "/api/v1";

const KEY_SCHEME: &str = "managementKey";
const TOKEN_SCHEME: &str = "kubernetesToken";

/// What a port serves, besides its health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    pub webhooks: bool,
    /// The management routes.
    pub managed: bool,
    /// An api serves it everywhere but in production.
    pub delivery_sink: bool,
}

impl Served {
    pub const EVERYTHING: Self = Self { webhooks: true, managed: true, delivery_sink: true };
}

/// The document of a port.
pub fn document(served: Served) -> OpenApi {
    let mut api = Common::openapi();
    if served.webhooks {
        api.merge(Public::openapi());
    }
    if served.managed {
        let mut managed = routes::described();
        for operation in managed.paths.paths.values_mut().flat_map(operations) {
            let scheme = |name| SecurityRequirement::new(name, Vec::<String>::new());
            operation.security = Some(vec![scheme(KEY_SCHEME), scheme(TOKEN_SCHEME)]);
            refuse(operation, "400", "A parameter or the body is invalid: `details.field` names it");
            refuse(operation, "401", "The credential is missing or invalid");
            refuse(operation, "403", "The caller has not the right that `x-grapnel-access` names");
            refuse(operation, "429", "Too many tokens were sent from this address, or from all");
            refuse(
                operation,
                "503",
                "The database or the API server of the cluster cannot be reached, or did not answer in time",
            );
        }
        api.merge(managed);
    }
    if served.delivery_sink {
        let mut sink = sink_route::<()>().into_openapi();
        for operation in sink.paths.paths.values_mut().flat_map(operations) {
            refuse(operation, "400", "The path or the body cannot be read: `details.field` names it");
        }
        api.merge(sink);
    }
    for operation in api.paths.paths.values_mut().flat_map(operations) {
        refuse(operation, "405", "The path does not have this method");
        refuse(operation, "500", "Internal server error");
        finish(operation);
    }
    let info = InfoBuilder::new()
        .title("Grapnel")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION))
        .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()))
        .build();
    let mut document = OpenApiBuilder::new().info(info).build().nest(BASE_PATH, api);
    let key = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
        KEY_HEADER,
        "The management key. Two keys may be valid at once, during a rotation.",
    )));
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A Kubernetes token, for the audience `grapnel` or for the API server, where the installation accepts them."))
        .build();
    let components = document.components.get_or_insert_default();
    if served.managed {
        components.add_security_scheme(KEY_SCHEME, key);
        components.add_security_scheme(TOKEN_SCHEME, SecurityScheme::Http(token));
    }
    for body in STRICT_BODIES {
        if let Some(RefOr::T(Schema::Object(body))) = components.schemas.get_mut(body) {
            body.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
        }
    }
    document
}

/// The request bodies that are read strictly: an unknown field is refused.
const STRICT_BODIES: [&str; 3] = ["ReplayBody", "NewReplay", "ReplayChange"];

const DESCRIPTION: &str = "Webhooks in, verified, deduplicated and stored; deliveries out, retried, replayable and \
    audited.\n\nEvery answer is an envelope: `{\"success\":true,\"data\":…,\"meta\":{}}` or \
    `{\"success\":false,\"error\":{\"code\",\"message\",\"details\":{}}}`. Times are RFC 3339 in UTC with milliseconds. \
    Every answer has an `x-correlation-id`, which is the request's own or a new one.";

#[derive(utoipa::OpenApi)]
#[openapi(paths(health), components(schemas(ErrorEnvelope, NoMeta)))]
struct Common;

#[derive(utoipa::OpenApi)]
#[openapi(paths(webhooks))]
struct Public;

pub(super) fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete].into_iter().filter_map(Option::as_mut)
}

/// Adds a refusal, unless the operation has its own description of it.
fn refuse(operation: &mut Operation, status: &str, description: &str) {
    let responses = &mut operation.responses.responses;
    if responses.contains_key(status) {
        return;
    }
    let body = Content::new(Some(Ref::from_schema_name(ErrorEnvelope::name())));
    let refusal = ResponseBuilder::new().description(description).content("application/json", body).build();
    responses.insert(status.to_owned(), RefOr::T(refusal));
}

/// Adds the headers that all operations have in common.
fn finish(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        let text = |description: &str| {
            let mut header = Header::new(ObjectBuilder::new().schema_type(Type::String));
            header.description = Some(description.to_owned());
            RefOr::T(header)
        };
        let mut header = |name: &str, description| {
            response.headers.insert(name.to_owned(), text(description));
        };
        header("x-correlation-id", "The id that follows the request through logs and events");
        match status.as_str() {
            "405" => header("allow", "The methods that the path has"),
            "429" | "503" => header("retry-after", "Seconds after which to try again"),
            _ => {}
        }
    }
}

/// Receive a webhook
///
/// The path of a configured integration, and its provider's own credentials. Refusals come in this order: 404, 429,
/// 413, 401, 415, 400; a `content-encoding` other than gzip and deflate is 415 before 413. The body must be a JSON object, with
/// what the provider's preset requires in it. An integration may also accept forms, and the methods GET and PUT: the
/// query of a GET is its payload.
#[utoipa::path(
    post, path = "/webhooks/{route}", tag = "Webhooks", operation_id = "receiveWebhook",
    params(("route" = String, Path, description = "The integration's route")),
    request_body(content = serde_json::Map<String, serde_json::Value>, description = "At most as large as the integration accepts, before and after it is decoded"),
    responses(
        (status = 202, description = "Stored, and queued for delivery", body = Envelope<WebhookAccepted<'static>>),
        (status = 200, description = "Received before", body = Envelope<WebhookAccepted<'static>>),
        (status = 400, description = "Not a JSON object, not what its content-encoding says, or a field is missing or invalid: `details.field` names it", body = ErrorEnvelope),
        (status = 401, description = "The provider's credentials are missing or invalid", body = ErrorEnvelope),
        (status = 404, description = "There is no active integration at this route", body = ErrorEnvelope),
        (status = 413, description = "The body is larger than the integration accepts", body = ErrorEnvelope),
        (status = 415, description = "The body is not of a type that the provider sends, or has an unknown content-encoding", body = ErrorEnvelope),
        (status = 429, description = "Too many requests from this address", body = ErrorEnvelope),
        (status = 503, description = "The webhook cannot be stored at the moment", body = ErrorEnvelope),
    ),
)]
pub fn webhooks() {}

/// Check the health of the service
#[utoipa::path(
    get, path = "/health", tag = "Health", operation_id = "checkHealth",
    responses(
        (status = 200, description = "The datastores that the process uses are healthy", body = Envelope<HealthReport>),
        (status = 503, description = "One of them is not", body = Envelope<HealthReport>),
    ),
)]
pub fn health() {}
