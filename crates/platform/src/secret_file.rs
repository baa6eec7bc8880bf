//! Reads files that contain a secret: the exact bytes, without one final line end (LF or CRLF). Editors add it, and it is
//! not part of the secret.

use std::io;
use std::path::Path;

use grapnel_crds::without_line_end;
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

/// Reads the secret in the file.
///
/// # Errors
/// When the file cannot be read.
pub fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut secret = Zeroizing::new(std::fs::read(path)?);
    let length = without_line_end(&secret).len();
    secret.truncate(length);
    Ok(secret)
}

/// Reads the secret in the file as text.
///
/// # Errors
/// When the file cannot be read, or is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<SecretString> {
    let secret = read(path)?;
    let text = std::str::from_utf8(&secret)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not valid UTF-8"))?;
    Ok(SecretString::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_not_part_of_a_secret() {
        for (text, secret) in [
            ("a\n", "a"),
            ("a\r\n", "a"),
            ("a", "a"),
            ("a\n\n", "a\n"),
            ("a\r", "a\r"),
            (" a \n", " a "),
            ("\n", ""),
            ("", ""),
        ] {
            assert_eq!(without_line_end(text.as_bytes()), secret.as_bytes(), "{text:?}");
        }
    }
}
