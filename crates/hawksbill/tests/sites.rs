//! Sites and routes over real sockets, from TOML.

mod support;

use support::{get, send, serve_toml, stop};

const SITES: &str = r#"
    listen = "127.0.0.1:0"

    [sites."example.com www.example.com"]
    "/" = { respond = "root" }
    "/static" = { respond = "static" }
    "/static/deep" = { respond = "deep" }

    [sites."*.example.com"]
    "/" = { respond = "wildcard" }

    [sites."bücher.example"]
    "/only" = { respond = "books" }
"#;

#[tokio::test]
async fn the_host_chooses_the_site() {
    let running = serve_toml(SITES).await;
    let address = &running.addresses()[0];
    for (host, body) in [
        ("example.com", "root"),
        ("EXAMPLE.com.", "root"),
        ("www.example.com:8080", "root"),
        ("shop.example.com", "wildcard"),
        ("a.b.example.com", "wildcard"),
    ] {
        assert_eq!(get(address, host, "/").await.body, body, "{host}");
    }
    assert_eq!(get(address, "xn--bcher-kva.example", "/only/this").await.body, "books");
    stop(running).await;
}

#[tokio::test]
async fn the_longest_prefix_chooses_the_route() {
    let running = serve_toml(SITES).await;
    let address = &running.addresses()[0];
    for (path, body) in [
        ("/", "root"),
        ("/static", "static"),
        ("/static/x", "static"),
        ("/static2", "root"),
        ("/static/deep/er", "deep"),
        ("/static/deeper", "static"),
        ("/st%61tic/x", "static"),
        ("//static//deep", "deep"),
        ("/static/./x", "static"),
    ] {
        assert_eq!(get(address, "example.com", path).await.body, body, "{path}");
    }
    // To an application each of these reads as a path of another route than the one they normalise to.
    for path in ["/static/../x", "/x/%2e%2e/static", "/static%2fdeep", "/../x"] {
        assert_eq!(get(address, "example.com", path).await.status, 400, "{path}");
    }
    stop(running).await;
}

#[tokio::test]
async fn pages_for_what_is_not_there_do_not_say_what_is() {
    let running = serve_toml(SITES).await;
    let address = &running.addresses()[0];
    let nobody = get(address, "other.org", "/").await;
    let nothing = get(address, "xn--bcher-kva.example", "/elsewhere").await;
    assert_eq!((nobody.status, nothing.status), (421, 404));
    for page in [nobody.body, nothing.body] {
        assert!(page.len() < 500 && !page.contains("example") && !page.contains("only"), "{page}");
    }
    let without_host = send(address, "GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(without_host.status, 421);
    stop(running).await;
}

#[tokio::test]
async fn the_default_site_answers_every_host_and_none() {
    let running = serve_toml("listen = '127.0.0.1:0'\n[sites.'*']\n'/' = { respond = 'any' }\n").await;
    let address = &running.addresses()[0];
    assert_eq!(get(address, "whatever.test", "/").await.body, "any");
    assert_eq!(send(address, "GET / HTTP/1.0\r\n\r\n").await.body, "any");
    stop(running).await;
}

#[tokio::test]
async fn a_site_with_a_socket_of_its_own_is_reached_through_it_alone() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let running = serve_toml(&format!(
        r#"
        listen = "127.0.0.1:0"
        trusted_proxies = ["private"]
        [sites."public.test"]
        "/" = {{ respond = "public" }}
        [sites."admin.test"]
        listen = ["unix:{}", "127.0.0.2:0"]
        "/" = {{ respond = "admin" }}
        "#,
        socket.display()
    ))
    .await;
    let addresses = running.addresses();
    assert_eq!(get(&addresses[0], "public.test", "/").await.body, "public");
    let forged = "GET http://admin.test/ HTTP/1.1\r\nHost: admin.test\r\nX-Forwarded-Host: admin.test\r\n\
                  Forwarded: host=admin.test\r\nConnection: close\r\n\r\n";
    assert_eq!(get(&addresses[0], "admin.test", "/").await.status, 421);
    assert_eq!(send(&addresses[0], forged).await.status, 421);
    assert_eq!(get(&addresses[2], "admin.test", "/").await.body, "admin");
    assert_eq!(get(&addresses[2], "public.test", "/").await.status, 421);
    assert!(socket.exists());
    stop(running).await;
    assert!(!socket.exists(), "the socket's file outlived the gateway");
}

#[tokio::test]
async fn a_limit_set_inside_replaces_the_one_outside() {
    let running = serve_toml(
        r#"
        listen = "127.0.0.1:0"
        max_body = "10"
        [sites."*"]
        "/" = { respond = "small" }
        "/upload" = { respond = "large", max_body = "1KB" }
        "#,
    )
    .await;
    let address = &running.addresses()[0];
    let post = |path: &str| {
        let body = "x".repeat(100);
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{body}")
    };
    assert_eq!(send(address, &post("/")).await.status, 413);
    assert_ne!(send(address, &post("/upload")).await.status, 413);
    stop(running).await;
}
