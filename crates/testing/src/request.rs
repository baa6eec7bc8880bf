//! A webhook as a provider sends it.

/// The public URL of the receiver, without a path. It is a part of the URLs that providers sign.
pub const PUBLIC_URL: &str = "https://hooks.example.com";

/// A request to the route of an Integration.
#[derive(Debug, Clone)]
pub struct WebhookRequest {
    pub method: String,
    /// The public URL without a path, as the provider knows it.
    pub public_url: String,
    pub route: String,
    pub query: Option<String>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl WebhookRequest {
    pub fn new(method: &str, route: &str) -> Self {
        Self {
            method: method.to_owned(),
            public_url: PUBLIC_URL.to_owned(),
            route: route.to_owned(),
            query: None,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub fn query(mut self, query: &str) -> Self {
        self.query = Some(query.to_owned());
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: &str) -> Self {
        self.body = body.as_bytes().to_vec();
        self
    }

    /// Returns the path and the query.
    pub fn path(&self) -> String {
        let query = self.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        format!("/api/v1/webhooks/{}{query}", self.route)
    }
}
