//! Which form of an answer a client prefers (RFC 9110 §12.5.1), of the two the gateway has.

use super::headers::{members, starts_with, trim_ows};

/// Whether the values of a request's Accept fields name JSON, and nothing textual with more weight.
/// Who does not ask for it gets text.
pub fn prefers_json<'a>(values: impl Iterator<Item = &'a [u8]>) -> bool {
    let (mut json, mut text) = (0, 0);
    for range in values.flat_map(members) {
        let mut parts = range.split(|byte| *byte == b';').map(trim_ows);
        let media_type = parts.next().unwrap_or_default();
        let weight = parts.find_map(weight).unwrap_or(1000);
        if is_json(media_type) {
            json = json.max(weight);
        } else if starts_with(media_type, b"text/") || media_type == b"*/*" {
            text = text.max(weight);
        }
    }
    json > 0 && json >= text
}

fn is_json(media_type: &[u8]) -> bool {
    let json = |name: &[u8]| media_type.eq_ignore_ascii_case(name);
    json(b"application/json") || json(b"application/problem+json")
}

/// `q=0.5` in thousandths (RFC 9110 §12.4.2). What is no weight says nothing.
fn weight(parameter: &[u8]) -> Option<u32> {
    let [b'q' | b'Q', b'=', value @ ..] = parameter else { return None };
    match value {
        [b'1', ..] => Some(1000),
        [b'0'] | [b'0', b'.'] => Some(0),
        [b'0', b'.', digits @ ..] if digits.len() <= 3 => {
            let digits = digits.iter().chain(b"00").take(3);
            digits
                .map(|digit| char::from(*digit).to_digit(10))
                .try_fold(0, |sum, digit| Some(sum * 10 + digit?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_for_who_prefers_it() {
        for (accept, json) in [
            ("", false),
            ("*/*", false),
            ("text/html, */*;q=0.8", false),
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/problem+json", true),
            ("application/json, text/plain, */*", true),
            ("application/json;q=0.5, text/html", false),
            ("text/html;q=0.4, application/json;q=0.45", true),
            ("application/json;q=0", false),
            ("application/json;q=0.001", true),
            ("text/plain;q=0.5, application/json;q=0.5", true),
            ("application/json;q=x", true),
        ] {
            assert_eq!(prefers_json([accept.as_bytes()].into_iter()), json, "{accept}");
        }
    }
}
