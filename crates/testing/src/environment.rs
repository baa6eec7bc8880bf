//! Names that no two tests share, and the environment variables of their processes.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

pub const MANAGEMENT_KEY: &str = "test-management-key-0123456789";
pub const SEALING_KEYS: &str = "first:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Returns a number that is different on each call of this process.
pub(crate) fn next_number() -> u32 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Returns a name that no other test uses at this time.
pub fn unique_name(prefix: &str) -> String {
    format!("{prefix}-{}-{}", std::process::id(), next_number())
}

/// Returns a port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// The environment variables of a process. It gets no others.
#[derive(Debug, Clone)]
pub struct Environment(Vec<(String, String)>);

impl Environment {
    pub fn new<const N: usize>(variables: [(&str, &str); N]) -> Self {
        Self(variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec())
    }

    pub fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| known == name);
        &found.unwrap_or_else(|| panic!("{name} is not set")).1
    }

    /// Sets or replaces a variable.
    pub fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.0.push((name.to_owned(), value.to_owned()));
    }

    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }

    /// Returns a copy with one more variable.
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut copy = self.clone();
        copy.set(name, value);
        copy
    }

    pub(crate) fn variables(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0.iter().map(|(name, value)| (name, value))
    }
}
