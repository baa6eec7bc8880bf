//! The certificates of the tests, made once for each run by `certificates/generate`, with openssl.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::LazyLock;

static FILES: LazyLock<BTreeMap<String, Vec<u8>>> = LazyLock::new(|| {
    let directory = std::env::temp_dir().join(format!("grapnel-certificates-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir(&directory).expect("a directory");
    let generate = concat!(env!("CARGO_MANIFEST_DIR"), "/certificates/generate");
    let made = Command::new(generate).arg(&directory).output().expect("bash");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, std::fs::read(path).expect("a file"))
    };
    let files = std::fs::read_dir(&directory).expect("a directory").map(read).collect();
    std::fs::remove_dir_all(&directory).expect("removed");
    files
});

pub fn file(name: &str) -> &'static [u8] {
    FILES.get(name).expect(name)
}
