//! Field names the gateway acts on, and the few pieces of field syntax it needs.

/// A field name the gateway treats specially; every other field passes as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// RFC 9110 §12.5.1; decides the form of the gateway's own answers.
    Accept,
    /// RFC 9110 §7.6.1: names fields for this hop only.
    Connection,
    /// RFC 9440, and the gateway's own `X-Client-Cert-…`: what only it may say of a client's
    /// certificate.
    ClientCert,
    /// RFC 9112 §6.2.
    ContentLength,
    /// RFC 6265 §5.4; may keep requests together.
    Cookie,
    /// RFC 9110 §6.6.1.
    Date,
    /// RFC 9110 §10.1.1.
    Expect,
    /// RFC 7239: what proxies before us say about the client.
    Forwarded,
    /// RFC 9112 §3.2.
    Host,
    /// RFC 2068 §19.7.1: hop by hop.
    KeepAlive,
    /// RFC 9110 §7.6.2: how many more hops an OPTIONS or TRACE may take.
    MaxForwards,
    /// What HTTP/1.0 proxies took for `Connection`: hop by hop.
    ProxyConnection,
    /// RFC 9110 §10.1.3; only copied into the access log.
    Referer,
    /// RFC 9110 §10.1.4: hop by hop.
    Te,
    /// RFC 9110 §6.6.2: describes trailers, which end here.
    Trailer,
    /// RFC 9112 §6.1.
    TransferEncoding,
    /// RFC 9110 §7.8: hop by hop.
    Upgrade,
    /// RFC 9110 §10.1.5; only copied into the access log.
    UserAgent,
    /// Who a request came from; the gateway writes its own.
    XForwardedFor,
    /// The host the client asked for; the gateway writes its own.
    XForwardedHost,
    /// The scheme the client used; the gateway writes its own.
    XForwardedProto,
    /// Every other `X-Forwarded-…`, and `X-Real-IP`: what only a proxy in front of us may claim.
    XForwarded,
    /// What CGI and its heirs take for one of those that say who a client is, as `X_Real_IP`.
    Underscored,
    /// Names one request in the logs of all who handle it.
    XRequestId,
    /// Everything else.
    Other,
}

impl Name {
    /// Finds out which name this is, whatever its case.
    pub fn of(name: &[u8]) -> Self {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.len() {
            2 if is("te") => Self::Te,
            4 if is("host") => Self::Host,
            4 if is("date") => Self::Date,
            6 if is("accept") => Self::Accept,
            6 if is("cookie") => Self::Cookie,
            6 if is("expect") => Self::Expect,
            7 if is("referer") => Self::Referer,
            7 if is("trailer") => Self::Trailer,
            7 if is("upgrade") => Self::Upgrade,
            9 if is("forwarded") => Self::Forwarded,
            10 if is("connection") => Self::Connection,
            10 if is("user-agent") => Self::UserAgent,
            10 if is("keep-alive") => Self::KeepAlive,
            9 if is("x-real-ip") => Self::XForwarded,
            11 if is("client-cert") => Self::ClientCert,
            12 if is("max-forwards") => Self::MaxForwards,
            12 if is("x-request-id") => Self::XRequestId,
            14 if is("content-length") => Self::ContentLength,
            15 if is("x-forwarded-for") => Self::XForwardedFor,
            16 if is("x-forwarded-host") => Self::XForwardedHost,
            16 if is("proxy-connection") => Self::ProxyConnection,
            17 if is("client-cert-chain") => Self::ClientCert,
            17 if is("transfer-encoding") => Self::TransferEncoding,
            17 if is("x-forwarded-proto") => Self::XForwardedProto,
            12.. if starts_with(name, b"x-forwarded-") => Self::XForwarded,
            14.. if starts_with(name, b"x-client-cert-") => Self::ClientCert,
            _ if name.contains(&b'_') => Self::of_underscores(name),
            _ => Self::Other,
        }
    }

    /// The same of a name with underscores, which never frames anything.
    fn of_underscores(name: &[u8]) -> Self {
        let name: Vec<u8> = name.iter().copied().map(dash).collect();
        match Self::of(&name) {
            Self::ClientCert
            | Self::XForwarded
            | Self::XForwardedFor
            | Self::XForwardedHost
            | Self::XForwardedProto
            | Self::XRequestId => Self::Underscored,
            _ => Self::Other,
        }
    }
}

fn dash(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte }
}

/// Whether CGI and its heirs take two names for the same: they make dashes underscores (RFC 3875 §4.1.18).
pub fn same_but_underscores(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|(a, b)| dash(*a).eq_ignore_ascii_case(&dash(*b)))
}

/// Whether `text` begins with `start`, whatever its case.
pub fn starts_with(text: &[u8], start: &[u8]) -> bool {
    text.get(..start.len()).is_some_and(|text| text.eq_ignore_ascii_case(start))
}

/// Strips optional whitespace, which is space and tab and nothing else (RFC 9110 §5.6.3); the
/// standard library's trims take more.
pub fn trim_ows(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The members of a comma-separated list, empty ones left out (RFC 9110 §5.6.1.2).
pub fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    members_by(value, b',')
}

/// The same of a list with another separator.
pub fn members_by(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    value.split(move |byte| *byte == separator).map(trim_ows).filter(|member| !member.is_empty())
}

/// Whether a byte may stand in a token, such as a method or a field name (RFC 9110 §5.6.2).
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// Whether a byte may stand in a field value: visible, space, tab or 0x80 and above
/// (RFC 9110 §5.5).
pub fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// One or more digits and nothing else; `None` also when the number exceeds 64 bits. Unlike
/// `str::parse` it takes no sign.
pub fn parse_digits(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case() {
        assert_eq!(Name::of(b"TRANSFER-encoding"), Name::TransferEncoding);
        assert_eq!(Name::of(b"x-forwarded-FOR"), Name::XForwardedFor);
        assert_eq!(Name::of(b"X-Forwarded-Prefix"), Name::XForwarded);
        assert_eq!(Name::of(b"X-Real-IP"), Name::XForwarded);
        assert_eq!(Name::of(b"x-forwardedfor"), Name::Other);
    }

    #[test]
    fn only_space_and_tab_are_whitespace() {
        assert_eq!(trim_ows(b" \t a b\t "), b"a b");
        assert_eq!(trim_ows(b"\x0bchunked"), b"\x0bchunked");
        assert_eq!(trim_ows(b"\xa0chunked"), b"\xa0chunked");
    }

    #[test]
    fn digits_take_no_sign_and_do_not_wrap() {
        assert_eq!(parse_digits(b"0042"), Some(42));
        assert_eq!(parse_digits(b"18446744073709551615"), Some(u64::MAX));
        for bad in ["", "+5", "-1", "18446744073709551616", "5 ", "0x5", "5_0", "\u{665}"] {
            assert_eq!(parse_digits(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
