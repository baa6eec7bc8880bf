//! Parsing files: everything that kubectl would accept, and nothing that would silently have no effect.

use grapnel_crds::names::integration_id;
use grapnel_crds::{Document, Integration, ParseError, Secret, SecretRef, parse_documents, resolve_secret};

use crate::cases::BASE;

const SECRET: &str = "\
apiVersion: v1
kind: Secret
metadata: {name: acme-webhook, namespace: shop}
type: Opaque
data: {secret: aHVudGVy, wrapped: \"aHVu\\ndGVy\\n\", overridden: b2xk}
stringData: {overridden: new, empty: \"\"}
";

fn read(text: &str) -> Vec<Document> {
    parse_documents(text).expect("the text can be read")
}

fn refusal(text: &str) -> String {
    parse_documents(text).expect_err("the text cannot be read").to_string()
}

fn integration(text: &str) -> Integration {
    match read(text).remove(0) {
        Document::Integration(integration) => *integration,
        Document::Secret(_) => panic!("a Secret"),
    }
}

fn secrets(text: &str) -> Vec<Secret> {
    let secret = |document| match document {
        Document::Secret(secret) => Some(secret),
        Document::Integration(_) => None,
    };
    read(text).into_iter().filter_map(secret).collect()
}

fn secret_ref(key: &str) -> SecretRef {
    SecretRef { name: "acme-webhook".to_owned(), key: key.to_owned() }
}

#[test]
fn a_file_has_any_number_of_documents_and_empty_ones_do_not_count() {
    let text = format!("# a comment\n---\n{BASE}---\n# nothing\n---\n{SECRET}---\n");
    let kinds: Vec<_> = read(&text).iter().map(|document| matches!(document, Document::Secret(_))).collect();
    assert_eq!(kinds, [false, true]);
    assert!(read("").is_empty());
}

#[test]
fn defaults_are_those_of_the_schema() {
    let integration = integration(BASE);
    assert_eq!(integration.spec.verification.secret_ref.key, "secret");
    assert_eq!(integration.spec.destinations[0].retry.max_attempts, 5);
    assert_eq!(integration.spec.workers.replicas, 1);
    assert_eq!(integration.route(), "acme-orders");
    assert!(integration.spec.delivers());
}

#[test]
fn a_null_is_treated_as_in_the_api_server() {
    let text = BASE.replace(
        "provider: acme",
        "provider: acme\n  state: null\n  route: null\n  workers: {replicas: null}",
    );
    assert_eq!(integration(&text).spec.workers.replicas, 1);
    assert_eq!(integration(&text).spec.route, None);
    let text = BASE.replace("provider: acme", "provider: null");
    assert_eq!(
        refusal(&text),
        "document 1 (line 2, Integration shop/acme-orders): spec.provider: Required value"
    );
}

#[test]
fn numbers_are_read_as_kubectl_reads_them() {
    let spec = |days: &str| {
        BASE.replace("provider: acme", &format!("provider: acme\n  retention: {{days: {days}}}"))
    };
    for (text, days) in [("10.0", 10), ("1e2", 100), ("010", 8), ("0x10", 16), ("1_0", 10)] {
        assert_eq!(integration(&spec(text)).spec.retention.days, days, "{text}");
    }
}

#[test]
fn an_object_without_a_namespace_is_in_the_default_namespace() {
    let integration = integration(&BASE.replace("  namespace: shop\n", ""));
    assert_eq!(integration.metadata.namespace.as_deref(), Some("default"));
    assert_eq!(integration.id(), integration_id(None, "default", "acme-orders"));
}

#[test]
fn a_status_in_a_file_is_dropped() {
    assert_eq!(integration(&format!("{BASE}status: {{observedGeneration: 7}}\n")).status, None);
}

#[test]
fn errors_are_reported_with_their_position() {
    let cases = [
        ("kind: Integration\n", "document 1 (line 1): apiVersion: Required value"),
        ("apiVersion: v1\n", "document 1 (line 1): kind: Required value"),
        ("- a\n", "document 1 (line 1): must be an object with apiVersion, kind and metadata"),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n",
            "document 1 (line 1, ConfigMap default/a): kind: unsupported kind ConfigMap; must be Integration \
             (grapnel.dev/v1alpha1) or Secret (v1)",
        ),
        (
            "apiVersion: grapnel.dev/v1\nkind: Integration\nmetadata: {name: a}\n",
            "document 1 (line 1, Integration default/a): apiVersion: must be grapnel.dev/v1alpha1",
        ),
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {generateName: a}\n",
            "document 1 (line 1): metadata.name: Required value",
        ),
        ("a: 1\na: 2\n", "line 2, column 1: duplicate field a"),
        ("a: *b\n", "line 1, column 4: an alias refers to an anchor that does not exist"),
    ];
    for (text, expected) in cases {
        assert_eq!(refusal(text), expected, "{text}");
    }
}

#[test]
fn the_mistakes_of_all_documents_are_reported_together() {
    let text = format!("{SECRET}---\n{BASE}  routes: a\n---\n{SECRET}dat: {{}}\n");
    assert_eq!(
        refusal(&text),
        "document 2 (line 9, Integration shop/acme-orders): spec.routes: unknown field; did you mean route?; \
         document 3 (line 24, Secret shop/acme-webhook): dat: unknown field; did you mean data?"
    );
}

#[test]
fn a_text_that_grows_out_of_proportion_is_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    assert!(refusal(&bomb).contains("its aliases repeat too much of it"), "{}", refusal(&bomb));
    assert!(refusal(&"[".repeat(100_000)).len() < 200);
    let large = "#".repeat(9 * 1024 * 1024);
    assert!(matches!(parse_documents(&large), Err(ParseError::TooLarge { .. })));
}

#[test]
fn a_secret_has_the_bytes_of_data_and_the_text_of_string_data() {
    let secrets = secrets(SECRET);
    let value = |key| resolve_secret(&secret_ref(key), "shop", &secrets).map(<[u8]>::to_vec);
    assert_eq!(value("secret").as_deref(), Ok(&b"hunter"[..]));
    assert_eq!(value("wrapped").as_deref(), Ok(&b"hunter"[..]));
    assert_eq!(value("overridden").as_deref(), Ok(&b"new"[..]));
}

#[test]
fn one_line_end_after_a_value_is_not_part_of_the_secret() {
    let written = |text: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: acme-webhook, namespace: shop}}\nstringData: {{secret: {text:?}}}\n"
        )
    };
    for (text, expected) in
        [("a\n", Ok("a")), ("a\r\n", Ok("a")), ("a\n\n", Ok("a\n")), (" a", Ok(" a")), ("\n", Err(()))]
    {
        let secrets = secrets(&written(text));
        let value = resolve_secret(&secret_ref("secret"), "shop", &secrets);
        assert_eq!(value.map_err(drop), expected.map(str::as_bytes), "{text:?}");
    }
}

#[test]
fn a_reference_without_a_value_has_the_reason_of_the_condition() {
    let secrets = secrets(SECRET);
    let reason = |key, namespace| {
        let error = resolve_secret(&secret_ref(key), namespace, &secrets).expect_err("there is no value");
        (error.reason(), error.to_string())
    };
    assert_eq!(
        reason("secret", "other"),
        ("SecretNotFound", "the Secret other/acme-webhook does not exist".to_owned())
    );
    assert_eq!(
        reason("missing", "shop"),
        ("SecretKeyMissing", "the Secret shop/acme-webhook has no key missing".to_owned())
    );
    assert_eq!(
        reason("empty", "shop"),
        ("SecretEmpty", "the key empty of the Secret shop/acme-webhook is empty".to_owned())
    );
}

#[test]
fn a_secret_value_is_in_no_debug_output_and_no_error() {
    let printed = format!("{:?}", read(SECRET));
    assert!(!printed.contains("hunter") && !printed.contains("104") && !printed.contains("new"), "{printed}");
    let head = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n";
    let mistakes = [
        "data: {secret: hunter2!}",
        "data: hunter2",
        "data: [hunter2]",
        "stringData: {secret: [hunter2]}",
        "stringData: {secret: {hunter2: 1}}",
        "stringData: {secret: 22222222222222222222222222222222}",
        "stringData: {secret: 2222222222222222222.5}",
        "stringData: {secret: 2e2222}",
        "stringData: {secret: !!int hunter2}",
        "stringData: {secret: !!binary hunter2}",
        "stringData: {secret: \"hunter2}",
        "stringData: {secret: 'hunter2' hunter2}",
        "stringData: {secret: *hunter2}",
        "stringData: {secret: \"\\hunter2\"}",
        "stringData:\n  secret: @hunter2",
        "stringData:\n  secret: hunter2: hunter2",
        "stringData:\n  secret: |3\n  hunter2",
        "stringData:\n secret: hunter2\n  hunter2: x",
    ];
    for mistake in mistakes {
        let text = format!("{head}{mistake}\n");
        let Err(error) = parse_documents(&text) else {
            panic!("{mistake} was read");
        };
        for printed in [error.to_string(), format!("{error:?}")] {
            assert!(!printed.contains("hunter2") && !printed.contains("2222"), "{mistake}: {printed}");
        }
    }
}
