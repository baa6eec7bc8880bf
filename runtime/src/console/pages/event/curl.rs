//! The command that repeats a webhook.

use std::fmt::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The longest body that a command contains, in bytes. A command line has an end, and so has the patience of a reader.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Headers that curl writes itself, or that would be wrong in a repetition.
const OWN_HEADERS: [&str; 7] = [
    "host",
    "content-length",
    "connection",
    "accept-encoding",
    "transfer-encoding",
    "content-encoding",
    "expect",
];

/// What stands for a secret in a stored header.
const REDACTED: &str = "[redacted]";

/// Returns a shell command that posts a webhook again, as it was received; `None` if its body is too long. Headers whose value was not stored are
/// in it as comments.
///
/// Nothing of a header or a body can end the text that it is in: the shell sees it in single quotes, or as base64.
pub(super) fn curl_command<'a>(
    url: &str,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    body: &[u8],
) -> Option<String> {
    if body.len() > MAX_BODY_BYTES {
        return None;
    }
    let (mut options, mut missing) = (String::new(), String::new());
    for (name, value) in headers {
        let is_plain = value.chars().all(|character| !character.is_control());
        if OWN_HEADERS.contains(&name) {
            continue;
        }
        // Writing to a String cannot fail.
        let _written = if value == REDACTED {
            writeln!(missing, "# the value of {name} is not stored: add -H '{name}: …'")
        } else if is_plain {
            write!(options, " \\\n  -H {}", quoted(&format!("{name}: {value}")))
        } else {
            Ok(())
        };
    }
    let text = std::str::from_utf8(body).ok();
    let readable = text.filter(|text| text.chars().all(|character| matches!(character, ' '..='~')));
    let url = quoted(url);
    Some(match readable {
        Some(text) => format!("{missing}curl {url}{options} \\\n  --data-raw {}\n", quoted(text)),
        None => format!(
            "{missing}printf %s '{}' | base64 --decode |\n  curl {url}{options} \\\n  --data-binary @-\n",
            STANDARD.encode(body)
        ),
    })
}

/// Returns the text as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_command_repeats_the_request() {
        let headers = [("content-type", "application/json"), ("host", "a"), ("authorization", "[redacted]")];
        let command = curl_command("https://a.example/hooks?x=1", headers, br#"{"a":1}"#).expect("a command");
        insta::assert_snapshot!(command, @r#"
        # the value of authorization is not stored: add -H 'authorization: …'
        curl 'https://a.example/hooks?x=1' \
          -H 'content-type: application/json' \
          --data-raw '{"a":1}'
        "#);
        assert_eq!(curl_command("https://a.example", [], &[b'x'; MAX_BODY_BYTES + 1]), None);
    }

    #[test]
    fn nothing_of_a_webhook_is_run_by_the_shell() {
        let hostile = "'; touch /tmp/no; $(touch /tmp/no) `id` \\";
        for body in [hostile.as_bytes(), b"\xff\0'; id", "é'\n#".as_bytes()] {
            let command =
                curl_command("https://a.example/'$(id)", [("x-a", hostile)], body).expect("a command");
            // The shell runs a curl that prints its arguments and what it reads.
            let script =
                format!("curl() {{ printf '<%s>' \"$@\"; case \"$*\" in *@-) cat ;; esac; }}\n{command}");
            let output = Command::new("sh").args(["-c", &script]).output().expect("a shell");
            let mut expected = format!("<https://a.example/'$(id)><-H><x-a: {hostile}>").into_bytes();
            match body {
                b"\xff\0'; id" | [0xc3, ..] => {
                    expected.extend_from_slice(b"<--data-binary><@->");
                    expected.extend_from_slice(body);
                }
                _ => expected.extend_from_slice(&[b"<--data-raw><", body, b">"].concat()),
            }
            assert_eq!(String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&expected));
        }
    }
}
