//! Which route a request takes, and what becomes of it there.

use crate::harness::{Gateway, Origin, Response, Setup, set_up};

/// Asks with a method, a target and fields.
fn ask(gateway: &Gateway, line: &str, fields: &str) -> Response {
    let method = line.split(' ').next().unwrap();
    let mut client = gateway.client();
    client.send(format!("{line} HTTP/1.1\r\nHost: a.example:80\r\n{fields}\r\n"));
    client.response_to(method)
}

/// An upstream for each name, whose origin says it.
fn upstreams(names: &[&str]) -> Setup {
    names.iter().fold(set_up(), |setup, name| setup.upstream(name, &[Origin::saying(name).address]))
}

fn route(setup: Setup, upstream: &str, lines: &str) -> Setup {
    setup.route(&format!("upstream = '{upstream}'\n{lines}"))
}

#[test]
fn conditions_choose_and_what_fits_nowhere_is_404_or_405() {
    let mut setup = upstreams(&["all", "canary", "debug", "write", "local", "urgent"]);
    for (upstream, lines) in [
        ("all", "path = '/x'\nmethods = ['GET', 'DELETE']"),
        ("canary", "path = '/x'\nmethods = ['GET']\nheaders = { x-canary = '~[12]' }"),
        ("debug", "path = '/x'\nquery = { debug = true, level = '1 2' }"),
        ("write", "path = '/x'\nmethods = ['PUT']"),
        ("local", "path = '/from/*'\nfrom = ['127.0.0.0/8']"),
        ("all", "path = '/from/*'"),
        ("urgent", "path = '~/(x|y)/[0-9]+'\npriority = 1\nheaders = { x-urgent = true }"),
        ("all", "path = '/x/1'\nheaders = { cookie = false }"),
    ] {
        setup = route(setup, upstream, lines);
    }
    let gateway = setup.start();
    for (line, fields, expected) in [
        ("GET /x", "", "all"),
        ("HEAD /x", "", ""),
        ("GET /x", "X-Canary: 2\r\n", "canary"),
        ("GET /x", "X-Canary: 3\r\n", "all"),
        ("GET /x?debug&level=1+2", "", "debug"),
        ("GET /x?debug=0&level=1%202", "", "debug"),
        ("GET /x?debug&level=2", "", "all"),
        ("PUT /x", "Content-Length: 0\r\n", "write"),
        ("GET /from/here", "", "local"),
        ("GET /x/1", "", "all"),
        ("GET /x/1", "X-Urgent: 1\r\n", "urgent"),
        ("GET /y/77", "X-Urgent: 1\r\n", "urgent"),
    ] {
        let response = ask(&gateway, line, fields);
        assert_eq!((response.status, response.text().as_str()), (200, expected), "{line} {fields}");
    }
    for (line, fields, status) in [
        ("GET /y/77", "", 404),
        ("GET /y/77x", "X-Urgent: 1\r\n", 404),
        ("GET /x/1", "Cookie: a=b\r\n", 404),
        ("PATCH /from", "", 200),
        ("POST /x", "Content-Length: 0\r\n", 405),
        ("PATCH /x", "X-Canary: 1\r\n", 405),
    ] {
        let response = ask(&gateway, line, fields);
        assert_eq!(response.status, status, "{line} {fields}");
        let allow = (status == 405).then_some("DELETE, GET, HEAD, PUT");
        assert_eq!(response.fields.one("allow"), allow);
    }
}

#[test]
fn requests_are_called_otherwise_at_the_origin() {
    let origin = Origin::saying("hello");
    let gateway = [
        "path = '/v2/*'\nrewrite = { strip_prefix = '/v2' }",
        "path = '/add/*'\nrewrite = { add_prefix = '/api', host = 'inner.example:81' }",
        "path = '/v3/*'\nrewrite = { replace_prefix = '/api' }",
        "path = '~/o/(?<id>[^/]+)(/.*)?'\nrewrite = { path = '/order{path:2}/{path:id}/{header:x-part}' }",
        "path = '/other/*'\nrewrite = { host = '{header:x-tenant}.example' }",
    ]
    .into_iter()
    .fold(set_up().upstream("main", &[origin.address]), |setup, lines| route(setup, "main", lines))
    .start();
    for (target, fields, path, host) in [
        ("/v2/a?b=c", "", "/a?b=c", "a.example:80"),
        ("/v2", "", "/", "a.example:80"),
        ("/add/a", "", "/api/add/a", "inner.example:81"),
        ("/v3/a/b?", "", "/api/a/b?", "a.example:80"),
        ("/v3", "", "/api", "a.example:80"),
        ("/o/7%20/x?y", "X-Part: a b\"\r\n", "/order/x/7%20/a%20b%22?y", "a.example:80"),
        ("/other/", "X-Tenant: t1\r\n", "/other/", "t1.example"),
    ] {
        let before = origin.requests().len();
        assert_eq!(ask(&gateway, &format!("GET {target}"), fields).status, 200, "{target}");
        let request = &origin.requests()[before];
        assert_eq!((request.target.as_str(), request.field("host")), (path, host));
        assert_eq!(request.field("x-forwarded-host"), "a.example:80");
    }
    // What a client puts in the place of a segment stays one, and a segment that servers know.
    for part in ["../secret", "..", "a/%2e%2e"] {
        assert_eq!(ask(&gateway, "GET /o/1", &format!("X-Part: {part}\r\n")).status, 400, "{part}");
    }
}

/// A field that a policy sets or removes is not the client's to choose a path by.
#[test]
fn fields_in_a_new_path_are_as_policies_have_left_them() {
    let origin = Origin::saying("hello");
    let lines = "policies = ['tenant']\nrewrite = { path = '/{header:x-tenant}/{header:x-debug}' }";
    let gateway = route(set_up().upstream("main", &[origin.address]), "main", lines)
        .set("policies.tenant", "kind = 'headers'")
        .set_more(
            "policies.tenant",
            "request = { set = { X-Tenant = 'mine' }, remove = ['x-debug'] }",
        )
        .start();
    assert_eq!(ask(&gateway, "GET /", "X-Tenant: other\r\nX-Debug: 1\r\n").status, 200);
    assert_eq!(origin.targets(), ["/mine/"]);
}

#[test]
fn routes_answer_and_redirect_by_themselves() {
    let gateway = set_up()
        .route("path = '/text'\nrespond = { body = '{method} {host} {path}{query} {client} {header:x-a}' }")
        .route(
            "path = '/json'\nrespond = { status = 503, content_type = 'application/json', \
             body = '{{\"path\": \"{path}\", \"a\": \"{query:a}\"}}' }",
        )
        .route("path = '/html'\nrespond = { content_type = 'text/html', body = '<p>{header:x-a}' }")
        .route("path = '/gone'\nrespond = { status = 410 }")
        .route("path = '/empty'\nrespond = { status = 204, body = 'x' }")
        .route("path = '/old/*'\nredirect = { to = 'https://new.example{path}{query}' }")
        .route("path = '~/user/(.+)'\nredirect = { status = 302, to = '/u?name={path:1}' }")
        .upstream("none", &["127.0.0.1:1".parse().unwrap()])
        .start();
    let get = |target: &str| ask(&gateway, &format!("GET {target}"), "X-A: <b> \"q\"\r\n");
    assert_eq!(get("/text?q=1").text(), "GET a.example /text?q=1 127.0.0.1 <b> \"q\"");
    let json = get("/json?a=%22%2C%0A%5C");
    assert_eq!((json.status, json.field("content-type")), (503, "application/json"));
    assert_eq!(json.text(), "{\"path\": \"/json\", \"a\": \"\\\",\\u000a\\\\\"}");
    assert_eq!(get("/html").text(), "<p>&#60;b&#62; &#34;q&#34;");
    assert_eq!(get("/gone").status, 410);
    let empty = get("/empty");
    assert_eq!((empty.status, empty.text().as_str()), (204, ""));
    assert_eq!(empty.fields.one("content-length"), None);
    let redirect = get("/old/a?b");
    assert_eq!(redirect.status, 308);
    assert_eq!(redirect.field("location"), "https://new.example/old/a?b");
    let redirect = get("/user/a%20b");
    assert_eq!((redirect.status, redirect.field("location")), (302, "/u?name=a%20b"));
    // Bodies are read away, and the connection lives on.
    let mut client = gateway.client();
    client.send("PUT /text HTTP/1.1\r\nHost: b\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(client.response_to("PUT").text(), "PUT b /text 127.0.0.1 ");
}

#[test]
fn requests_are_divided_by_share_and_stay_together() {
    let shares = "split = [{ upstream = 'old', weight = 3 }, { upstream = 'new', weight = 1 }]";
    let setup = upstreams(&["old", "new"])
        .route(&format!("path = '/each'\n{shares}"))
        .route(&format!("path = '/header'\n{shares}\nsticky = 'header:x-user'"))
        .route(&format!("path = '/cookie'\n{shares}\nsticky = 'cookie:v'"))
        .route(&format!("path = '/client'\n{shares}\nsticky = 'client'"));
    let gateway = setup.start();
    let mut client = gateway.client();
    let mut get = |target: &str, fields: &str| {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).response()
    };
    let count = (0..2000).filter(|_| get("/each", "").text() == "new").count();
    // Within five standard deviations of 500.
    assert!((403..=597).contains(&count), "{count} of 2000");

    let user = |number: usize| format!("X-User: {number}\r\n");
    let first: Vec<_> = (0..100).map(|number| get("/header", &user(number)).text()).collect();
    let again: Vec<_> = (0..100).map(|number| get("/header", &user(number)).text()).collect();
    assert_eq!(first, again);
    assert!(first.contains(&"new".to_owned()) && first.contains(&"old".to_owned()));

    let clients: Vec<_> = (0..20).map(|_| get("/client", "").text()).collect();
    assert!(clients.iter().all(|said| *said == clients[0]));

    for _ in 0..20 {
        let given = get("/cookie", "");
        let cookie = given.field("set-cookie").to_owned();
        let (pair, attributes) = cookie.split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax");
        let kept = get("/cookie", &format!("Cookie: a=b; {pair}; v2=c\r\n"));
        assert_eq!(kept.text(), given.text());
        assert_eq!(kept.fields.one("set-cookie"), None);
    }
}
