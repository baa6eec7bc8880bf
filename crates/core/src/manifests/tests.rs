use super::*;

/// A destination of the field, and the Secret `out` with labels.
fn manifest(destination: &str, labels: &str) -> String {
    format!(
        "apiVersion: grapnel.dev/v1alpha1
kind: Integration
metadata: {{name: acme, namespace: shop}}
spec:
  provider: acme
  verification: {{secretRef: {{name: acme}}}}
  destinations:
  - {{name: orders, url: 'https://orders.example.com', {destination}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: acme, namespace: shop}}
stringData: {{secret: s}}
---
apiVersion: v1
kind: Secret
metadata: {{name: out, namespace: shop, labels: {labels}}}
stringData: {{secret: t0ken, broken: \"a\\nb\"}}
"
    )
}

fn parsed(text: String) -> Result<Vec<DesiredIntegration>, String> {
    parse(&[(PathBuf::from("a.yaml"), text)].into()).map_err(|errors| errors.to_string())
}

fn errors(destination: &str, labels: &str) -> String {
    parsed(manifest(destination, labels)).err().unwrap_or_default()
}

const HEADER: &str = "headers: [{name: x-key, valueFrom: {name: out}}]";
const LABELED: &str = "{grapnel.dev/destination: 'true'}";

#[test]
fn what_destinations_send_is_resolved_from_labeled_secrets() {
    let desired = parsed(manifest(HEADER, LABELED)).expect("a valid manifest").remove(0);
    let secret_ref = SecretRef { name: "out".to_owned(), key: "secret".to_owned() };
    let sent = desired.secrets.sent(&secret_ref).expect("secrets").expect("a value");
    assert_eq!(sent.as_slice(), b"t0ken");
}

#[test]
fn a_secret_without_the_label_and_a_value_that_cannot_be_sent_are_named() {
    for labels in ["{}", "{grapnel.dev/destination: 'false'}", "{grapnel.dev/destination: ''}"] {
        let errors = errors(HEADER, labels);
        let field = "spec.destinations[0].headers[0].valueFrom: the Secret shop/out does not have the label";
        assert!(errors.contains(field) && !errors.contains("t0ken"), "{errors}");
    }
    let broken = HEADER.replace("{name: out}", "{name: out, key: broken}");
    let expected = "spec.destinations[0]: the value of headers[0] cannot be sent in a header";
    assert!(errors(&broken, LABELED).contains(expected), "{}", errors(&broken, LABELED));
    let tls = "tls: {caRef: {name: out, key: secret}}";
    let expected = "spec.destinations[0]: the value of tls.caRef has no certificate in PEM";
    assert!(errors(tls, LABELED).contains(expected), "{}", errors(tls, LABELED));
}

#[test]
fn the_examples_are_valid() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/destinations");
    let mut checked = 0;
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a file");
        // The Certificate is for cert-manager, and the Secret that it writes is in no file.
        if path.ends_with("mtls-certificate.yaml") {
            continue;
        }
        let found = parse(&[(path.clone(), text)].into()).err().map(|errors| errors.0).unwrap_or_default();
        let expected = match path.file_name().and_then(|name| name.to_str()) {
            Some("mtls.yaml") => Some("the Secret shop/grapnel-client does not exist"),
            Some("service.yaml") => Some("a Service needs the controller"),
            _ => None,
        };
        let is_expected = |error: &String| expected.is_some_and(|expected| error.contains(expected));
        let others: Vec<_> = found.iter().filter(|error| !is_expected(error)).collect();
        assert_eq!(others, Vec::<&String>::new());
        assert_eq!(!found.is_empty(), expected.is_some(), "{found:?}");
        checked += 1;
    }
    assert!(checked > 0);
}
