//! Whether what is called an image is one.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// Characters in which the bytes stand that tell an image's format.
const HEAD: usize = 16;

/// True for the `data:` address of an image in base64. Its head is looked at, not whether all of it can be shown: it may have
/// many megabytes, and is not copied.
pub(crate) fn is_image(url: &str) -> bool {
    let data =
        url.strip_prefix("data:").and_then(|rest| rest.split_once(',')).filter(|(head, _)| head.ends_with(";base64"));
    data.is_some_and(|(_, data)| {
        let head = data.get(..HEAD).and_then(|head| BASE64_STANDARD.decode(head).ok());
        is_base64(data) && head.is_some_and(|head| is_of_known_format(&head))
    })
}

fn is_base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let is_of_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    text.len().is_multiple_of(4) && text.len() - body.len() <= 2 && body.bytes().all(is_of_alphabet)
}

fn is_of_known_format(head: &[u8]) -> bool {
    let is_webp = head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP");
    is_webp
        || [&b"\x89PNG\r\n\x1a\n"[..], b"\xff\xd8\xff", b"GIF87a", b"GIF89a"]
            .iter()
            .any(|magic| head.starts_with(magic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_in_base64_and_begins_as_its_format_does() {
        let address = |bytes: &[u8]| format!("data:image/png;base64,{}", BASE64_STANDARD.encode(bytes));
        for head in [&b"\x89PNG\r\n\x1a\n"[..], b"\xff\xd8\xff\xe0", b"GIF89a", b"RIFF\x01\x02\x03\x04WEBP"] {
            assert!(is_image(&address(&[head, &[7; 20]].concat())), "{head:?}");
        }
        assert!(!is_image(&address(b"no image at all, only words")));
        let whole = address(&[&b"GIF89a"[..], &[7; 20]].concat());
        for broken in [
            whole.replace(";base64", ""),
            whole.replace("data:", "DATA:"),
            format!("{whole}@@@@"),
            format!("{whole}A"),
            format!("{whole} "),
            "data:image/png;base64,".into(),
            "http://127.0.0.1/x.png".into(),
        ] {
            assert!(!is_image(&broken), "{broken}");
        }
    }
}
