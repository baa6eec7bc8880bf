//! The three files that pages load. Each has the hash of its content in its name, so a browser keeps it for good, and is compressed once.

use std::io::Write;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, StatusCode, header};
use sha2::{Digest, Sha256};

use super::browser;

/// The file names, as pages link them.
pub(super) struct AssetNames {
    pub(super) style: String,
    pub(super) script: String,
    pub(super) htmx: String,
}

struct Asset {
    name: String,
    content_type: &'static str,
    plain: &'static [u8],
    compressed: Bytes,
}

const STYLE: &[u8] = include_bytes!("../../assets/console/console.css");
const SCRIPT: &[u8] = include_bytes!("../../assets/console/console.js");
const HTMX: &[u8] = include_bytes!("../../assets/console/htmx-4.0.1.min.js");

static ASSETS: LazyLock<[Asset; 3]> = LazyLock::new(|| {
    [
        Asset::new("console", "css", "text/css; charset=utf-8", STYLE),
        Asset::new("console", "js", "text/javascript; charset=utf-8", SCRIPT),
        Asset::new("htmx", "js", "text/javascript; charset=utf-8", HTMX),
    ]
});

pub(super) static NAMES: LazyLock<AssetNames> = LazyLock::new(|| {
    let [style, script, htmx] = &*ASSETS;
    AssetNames { style: style.name.clone(), script: script.name.clone(), htmx: htmx.name.clone() }
});

impl Asset {
    fn new(stem: &str, extension: &str, content_type: &'static str, plain: &'static [u8]) -> Self {
        let hash = hex::encode(&Sha256::digest(plain)[..8]);
        Self {
            name: format!("{stem}.{hash}.{extension}"),
            content_type,
            plain,
            compressed: compress(plain, Compression::best()),
        }
    }
}

/// Compresses bytes with gzip.
pub(super) fn compress(plain: &[u8], level: Compression) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 3), level);
    // A vector takes everything.
    let written = encoder.write_all(plain).and_then(|()| encoder.finish());
    written.map(Bytes::from).unwrap_or_default()
}

/// Serves a file by its name. Files of another version have other names, and are not there.
pub(super) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let kept = [
        (header::CONTENT_TYPE, asset.content_type),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
        (header::VARY, "accept-encoding"),
    ];
    if browser::accepts_gzip(&headers) {
        (kept, [(header::CONTENT_ENCODING, "gzip")], asset.compressed.clone()).into_response()
    } else {
        (kept, asset.plain).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn htmx_is_the_released_file() {
        let hash = hex::encode(Sha256::digest(HTMX));
        assert_eq!(hash, "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130");
    }

    #[test]
    fn script_is_short_and_all_files_are_small() {
        assert!(SCRIPT.split(|byte| *byte == b'\n').count() <= 200);
        let compressed: usize = ASSETS.iter().map(|asset| asset.compressed.len()).sum();
        assert!(compressed < 26 * 1024, "{compressed} bytes");
    }
}
