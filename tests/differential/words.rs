//! What heads are made of, each with how much likelier it is than the least likely.

pub const METHODS: &[(usize, &str)] = &[
    (30, "GET"),
    (20, "POST"),
    (5, "PUT"),
    (5, "HEAD"),
    (3, "DELETE"),
    (6, "OPTIONS"),
    (1, "PATCH"),
    (1, "get"),
    (1, "M-SEARCH"),
    (1, "!#$%&'*+-.^_`|~"),
    (1, "CONNECT"),
    (1, "TRACE"),
    (1, ""),
];

pub const TARGETS: &[(usize, &str)] = &[
    (30, "/"),
    (20, "/a/b?c=d"),
    (10, "/index.html"),
    (5, "/a%20b?%41"),
    (1, "/;a=b,c"),
    (1, "//x//y"),
    (1, "/a/../b"),
    (1, "/[x]|^"),
    (1, "/?{`}?"),
    (1, "/:@!$&'()*+"),
    (2, "*"),
    (5, "http://a.test/"),
    (1, "http://a.test"),
    (5, "https://a.test:8443/x?y"),
    (1, "HTTP://A.test?q"),
    (1, "http://[::1]:80/"),
    (1, "http://u@a.test/"),
    (1, "http:///"),
    (1, "http://a.test:x/"),
    (1, "a.test:80"),
    (1, "foo"),
    (1, "ftp://a.test/"),
    (1, "/a#b"),
    (1, "/\"<>\\"),
    (1, "/{`}"),
    (1, "/\u{e9}"),
    (1, "/%zz"),
    (1, "/?%4"),
    (1, "/%"),
    (1, ""),
];

pub const VERSIONS: &[(usize, &str)] = &[
    (60, "HTTP/1.1"),
    (12, "HTTP/1.0"),
    (1, "HTTP/1.2"),
    (1, "HTTP/2.0"),
    (1, "HTTP/0.9"),
    (1, "HTTP/1.10"),
    (1, "HTTP/1"),
    (1, "http/1.1"),
    (1, "HTTP/1,1"),
    (1, ""),
];

pub const HOSTS: &[(usize, &str)] = &[
    (60, "Host: a.test"),
    (5, "host:a.test:8080"),
    (1, "HOST: \t[::1]:80 \t"),
    (1, "Host: 127.0.0.1"),
    (1, "Host: a_b-c.test:"),
    (1, "Host: %41"),
    (1, "Host:"),
    (1, "Host: a b"),
    (1, "Host: u@a.test"),
    (1, "Host: a.test/x"),
    (1, "Host: a:123456"),
    (1, "Host: [x]"),
    (1, "Host: [::1"),
    (1, "Host: [::1]x"),
    (1, "Host: a,b:c"),
    (1, "Host: \u{e9}"),
    (1, "X-Not-Host: a"),
];

pub const LENGTHS: &[(usize, &str)] = &[
    (15, "Content-Length: 5"),
    (5, "content-length:0"),
    (1, "Content-Length: 0042\t"),
    (1, "Content-Length: 18446744073709551615"),
    (1, "Content-Length: 18446744073709551616"),
    (1, "Content-Length: +5"),
    (1, "Content-Length: -5"),
    (1, "Content-Length: 5, 5"),
    (1, "Content-Length: 5,6"),
    (1, "Content-Length: 0x5"),
    (1, "Content-Length: 5 5"),
    (1, "Content-Length:"),
    (1, "Content-Length: \u{665}"),
    (1, "Content-Length: ,"),
];

pub const CODINGS: &[(usize, &str)] = &[
    (15, "Transfer-Encoding: chunked"),
    (5, "transfer-encoding:\tChunKed "),
    (1, "Transfer-Encoding: , chunked ,"),
    (1, "Transfer-Encoding: gzip, chunked"),
    (1, "Transfer-Encoding: chunked, gzip"),
    (1, "Transfer-Encoding: chunked, chunked"),
    (1, "Transfer-Encoding: identity"),
    (1, "Transfer-Encoding: chunked;a=b"),
    (1, "Transfer-Encoding: xchunked"),
    (1, "Transfer-Encoding: \"chunked\""),
    (1, "Transfer-Encoding: chun\u{212a}ed"),
    (1, "Transfer-Encoding: \u{a0}chunked"),
    (1, "Transfer-Encoding:"),
    (1, "Transfer-Encoding: ,"),
];

pub const OTHERS: &[(usize, &str)] = &[
    (1, "Accept: */*"),
    (1, "Accept: text/html;q=0.9,*/*"),
    (1, "Connection: close"),
    (1, "Connection: keep-alive, x"),
    (1, "Connection: Upgrade"),
    (1, "Upgrade: websocket"),
    (1, "Expect: 100-continue"),
    (1, "TE: trailers"),
    (1, "Via: 1.1 a"),
    (1, "Cookie: a=b; c=\"d\""),
    (1, "X-Empty:"),
    (1, "X-Blank: \t "),
    (1, "X_Under: x"),
    (1, "X-Text:\ta \t b\t "),
    (1, "A:b"),
    (1, "X-Latin: caf\u{e9}"),
    (1, "Forwarded: for=\"[::1]\""),
    (1, "X-Colon: a:b"),
    (1, "!#$%&'*+-.^_`|~: token"),
];

/// What lines, fields and numbers are made of, and what must not get among them.
pub const BYTES: &[u8] = b"\r\n \t\0\x01\x0b\x0c\x1f\x7f\x80\x85\xa0\xff:,;%/+-*?#@\"059aAfxHT.=[_";

/// What goes into the middle of a line.
pub const FOLDS: &[(usize, &str)] =
    &[(1, "\r\n x"), (1, "\r\n\t"), (1, " \r\n "), (1, "\r\n"), (1, "\r\n\r\n")];

/// What goes before the first.
pub const EMPTY_LINES: &[(usize, &str)] = &[
    (2, "\r\n"),
    (2, "\r\n\r\n\r\n"),
    (1, "\r\n\r\n\r\n\r\n"),
    (2, "\r\n\r\n\r\n\r\n\r\n"),
    (1, "\n"),
];
