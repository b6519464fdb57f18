use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, UNIX_EPOCH};

use hawksbill_core::body::to_bytes;
use hawksbill_core::config::{Path, parse_toml};
use hawksbill_core::{Body, Mount};
use http::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, LOCATION, RANGE,
};
use http::{HeaderMap, Method, Request, Response};

use super::*;

/// A directory of files and the turtle that serves it.
struct Site {
    dir: tempfile::TempDir,
    turtle: Turtle,
}

fn site() -> Site {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("static");
    std::fs::create_dir_all(path.join("css")).unwrap();
    std::fs::create_dir_all(path.join("empty")).unwrap();
    std::fs::create_dir_all(path.join(".git")).unwrap();
    std::fs::write(dir.path().join("secret"), "secret").unwrap();
    std::fs::write(path.join(".git/config"), "hidden").unwrap();
    std::fs::write(path.join("index.html"), "<h1>home</h1>").unwrap();
    std::fs::write(path.join("css/index.html"), "css").unwrap();
    std::fs::write(path.join("css/x.css"), "0123456789").unwrap();
    std::fs::write(path.join("zero"), "").unwrap();
    std::fs::write(path.join("big.bin"), big()).unwrap();
    std::fs::write(path.join(std::ffi::OsStr::from_bytes(b"\xff.txt")), "latin").unwrap();
    let turtle = Files::of("static").build(&mut Builder::new(dir.path())).unwrap();
    Site { dir, turtle }
}

fn big() -> Vec<u8> {
    (0..300_000u32).map(|at| u8::try_from(at % 253).unwrap()).collect()
}

impl Site {
    async fn send(&self, request: http::request::Builder) -> Result<Response<Body>, Error> {
        self.turtle.ask(request.body(Body::empty()).unwrap()).await
    }

    async fn get(&self, path: &str) -> Result<Response<Body>, Error> {
        self.send(Request::get(path)).await
    }

    async fn status(&self, path: &str) -> u16 {
        match self.get(path).await {
            Ok(response) => response.status().as_u16(),
            Err(error) => error.status().as_u16(),
        }
    }
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()).unwrap()
}

fn shown(headers: &HeaderMap, name: http::HeaderName) -> &str {
    headers[name].to_str().unwrap()
}

#[tokio::test]
async fn a_file_has_its_headers() {
    let site = site();
    let modified = UNIX_EPOCH + Duration::new(784_111_777, 5);
    std::fs::File::open(site.dir.path().join("static/css/x.css")).unwrap().set_modified(modified).unwrap();
    let response = site.get("/css/x.css").await.unwrap();
    assert_eq!(response.status(), 200);
    let headers = response.headers();
    assert_eq!(shown(headers, CONTENT_TYPE), "text/css; charset=utf-8");
    assert_eq!(shown(headers, CONTENT_LENGTH), "10");
    assert_eq!(shown(headers, ACCEPT_RANGES), "bytes");
    assert_eq!(shown(headers, LAST_MODIFIED), "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(shown(headers, ETAG), format!("\"{:x}-a\"", 784_111_777_000_000_005u64));
    assert_eq!(text(response).await, "0123456789");
}

#[tokio::test]
async fn large_files_and_empty_ones_arrive() {
    let site = site();
    let response = site.get("/big.bin").await.unwrap();
    assert_eq!(shown(response.headers(), CONTENT_TYPE), "application/octet-stream");
    assert!(to_bytes(response.into_body(), usize::MAX).await.unwrap() == big());
    let response = site.get("/zero").await.unwrap();
    assert_eq!(shown(response.headers(), CONTENT_LENGTH), "0");
    assert_eq!(text(response).await, "");
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let site = site();
    let get = site.get("/big.bin").await.unwrap();
    let head = site.send(Request::head("/big.bin").header(RANGE, "bytes=0-1")).await.unwrap();
    assert_eq!(head.status(), 200);
    assert_eq!(head.headers(), get.headers());
    assert_eq!(text(head).await, "");
}

#[tokio::test]
async fn other_methods_are_refused() {
    let site = site();
    let error = site.send(Request::post("/css/x.css")).await.unwrap_err().into_response();
    assert_eq!(error.status(), 405);
    assert_eq!(shown(error.headers(), ALLOW), "GET, HEAD, OPTIONS");
    let options = site.send(Request::options("/css/x.css")).await.unwrap();
    assert_eq!((options.status().as_u16(), shown(options.headers(), ALLOW)), (204, "GET, HEAD, OPTIONS"));
}

#[tokio::test]
async fn a_mount_is_cut_off() {
    let site = site();
    let mounted = |path: &str, mount: Mount| {
        let mut request = Request::get(path).body(Body::empty()).unwrap();
        request.extensions_mut().insert(mount);
        site.turtle.ask(request)
    };
    let response = mounted("/static/css/x.css", Mount::new("/static")).await.unwrap();
    assert_eq!(text(response).await, "0123456789");
    let response =
        mounted("//static/css/x.css", Mount::new("/static").with_rest("/css/x.css")).await.unwrap();
    assert_eq!(text(response).await, "0123456789");
    let response = mounted("/static?a=b", Mount::new("/static")).await.unwrap();
    assert_eq!((response.status().as_u16(), shown(response.headers(), LOCATION)), (301, "/static/?a=b"));
    assert_eq!(mounted("/static/static/css/x.css", Mount::new("/static")).await.unwrap_err().status(), 404);
}

#[tokio::test]
async fn directories_show_their_index_and_nothing_else() {
    let site = site();
    let response = site.get("/").await.unwrap();
    assert_eq!(shown(response.headers(), CONTENT_TYPE), "text/html; charset=utf-8");
    assert_eq!(text(response).await, "<h1>home</h1>");
    let response = site.get("/css?v=1").await.unwrap();
    assert_eq!((response.status().as_u16(), shown(response.headers(), LOCATION)), (301, "/css/?v=1"));
    assert_eq!(text(site.get("/css/").await.unwrap()).await, "css");
    for path in ["/empty", "/empty/", "/css/x.css/", "/none/", "/none"] {
        assert_eq!(site.status(path).await, 404, "{path}");
    }
}

#[tokio::test]
async fn a_redirect_leads_to_no_other_host() {
    let response = site().get("//css").await.unwrap();
    assert_eq!(shown(response.headers(), LOCATION), "/css/");
}

#[tokio::test]
async fn indexes_are_tried_in_order() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("b.html"), "b").unwrap();
    std::fs::create_dir(dir.path().join("a.html")).unwrap();
    let index = vec!["a.html".to_owned(), "b.html".to_owned()].into();
    let turtle = Files { index, ..Files::of(dir.path()) }.build(&mut Builder::new("/")).unwrap();
    let response = turtle.ask(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(text(response).await, "b");
}

#[tokio::test]
async fn what_is_hidden_or_outside_is_not_found() {
    let site = site();
    for path in [
        "/.git/config",
        "/.git/",
        "/../secret",
        "/css/../../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/..\\secret",
    ] {
        assert_eq!(site.status(path).await, 404, "{path}");
    }
    for path in ["/zero%00", "/%zz"] {
        assert_eq!(site.status(path).await, 400, "{path}");
    }
    assert_eq!(site.status(&format!("/{}", "a".repeat(5000))).await, 404);
}

#[tokio::test]
async fn names_need_not_be_text() {
    assert_eq!(text(site().get("/%FF.txt").await.unwrap()).await, "latin");
}

#[tokio::test]
async fn special_files_are_not_found_and_do_not_block() {
    let site = site();
    let path = site.dir.path().join("static");
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, path.join("fifo"), fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path.join("socket")).unwrap();
    symlink("/dev/zero", path.join("device")).unwrap();
    for path in ["/fifo", "/socket", "/device"] {
        let status = tokio::time::timeout(Duration::from_secs(5), site.status(path)).await;
        assert_eq!(status, Ok(404), "{path}");
    }
}

#[tokio::test]
async fn links_out_are_not_followed_where_only_inside_is_allowed() {
    let site = site();
    symlink("../secret", site.dir.path().join("static/link")).unwrap();
    assert_eq!(text(site.get("/link").await.unwrap()).await, "secret");
    let inside = Files { symlinks: Symlinks::Inside, ..Files::of("static") };
    let turtle = inside.build(&mut Builder::new(site.dir.path())).unwrap();
    assert_eq!(
        turtle.ask(Request::get("/link").body(Body::empty()).unwrap()).await.unwrap_err().status(),
        404
    );
}

#[tokio::test]
async fn an_unreadable_file_is_forbidden() {
    let site = site();
    let path = site.dir.path().join("static/zero");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    // Root reads everything.
    let expected = if std::fs::File::open(&path).is_ok() { 200 } else { 403 };
    assert_eq!(site.status("/zero").await, expected);
}

#[tokio::test]
async fn what_a_client_has_is_not_sent_again() {
    let site = site();
    let first = site.get("/css/x.css").await.unwrap();
    let (etag, modified) = (first.headers()[ETAG].clone(), first.headers()[LAST_MODIFIED].clone());
    let second = site.send(Request::get("/css/x.css").header(IF_NONE_MATCH, &etag)).await.unwrap();
    assert_eq!(second.status(), 304);
    assert_eq!(second.headers()[ETAG], etag);
    assert!(!second.headers().contains_key(CONTENT_LENGTH) && !second.headers().contains_key(CONTENT_TYPE));
    assert_eq!(text(second).await, "");
    let third = site.send(Request::get("/css/x.css").header(IF_MODIFIED_SINCE, &modified)).await.unwrap();
    assert_eq!(third.status(), 304);
    let fourth = site.send(Request::get("/css/x.css").header(IF_MATCH, "\"x\"")).await.unwrap();
    assert_eq!(fourth.status(), 412);
    // The same size, another content: the time tells.
    std::fs::write(site.dir.path().join("static/css/x.css"), "9876543210").unwrap();
    let fifth = site.send(Request::get("/css/x.css").header(IF_NONE_MATCH, &etag)).await.unwrap();
    assert_eq!(fifth.status(), 200);
}

#[tokio::test]
async fn a_range_is_a_part() {
    let site = site();
    let response = site.send(Request::get("/css/x.css").header(RANGE, "bytes=-3")).await.unwrap();
    assert_eq!(response.status(), 206);
    assert_eq!(shown(response.headers(), CONTENT_RANGE), "bytes 7-9/10");
    assert_eq!(shown(response.headers(), CONTENT_LENGTH), "3");
    assert_eq!(text(response).await, "789");
    let stale = Request::get("/css/x.css").header(RANGE, "bytes=-3").header(IF_RANGE, "\"stale\"");
    assert_eq!(site.send(stale).await.unwrap().status(), 200);
    let error =
        site.send(Request::get("/css/x.css").header(RANGE, "bytes=10-")).await.unwrap_err().into_response();
    assert_eq!(error.status(), 416);
    assert_eq!(shown(error.headers(), CONTENT_RANGE), "bytes */10");
}

#[tokio::test]
async fn several_ranges_are_parts_with_a_boundary() {
    let response = site().send(Request::get("/css/x.css").header(RANGE, "bytes=0-1,8-8")).await.unwrap();
    assert_eq!(response.status(), 206);
    let content_type = shown(response.headers(), CONTENT_TYPE).to_owned();
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let length: usize = shown(response.headers(), CONTENT_LENGTH).parse().unwrap();
    let body = text(response).await;
    assert_eq!(body.len(), length);
    let part = "Content-Type: text/css; charset=utf-8\r\nContent-Range: bytes";
    assert_eq!(
        body,
        format!(
            "--{boundary}\r\n{part} 0-1/10\r\n\r\n01\r\n--{boundary}\r\n{part} 8-8/10\r\n\r\n8\r\n--{boundary}--\r\n"
        )
    );
}

#[test]
fn a_directory_that_cannot_be_served_is_an_error_at_build() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    for (name, reason) in [("none", "No such file or directory"), ("file", "Not a directory")] {
        let error = Files::of(name).build(&mut Builder::new(dir.path())).unwrap_err().to_string();
        let full = dir.path().join(name).display().to_string();
        assert!(error.contains(&full) && error.contains(reason), "{error}");
    }
    let bad = Files { index: vec!["../secret".to_owned()].into(), ..Files::of(dir.path()) };
    assert!(bad.build(&mut Builder::new("/")).unwrap_err().to_string().contains("without slashes"));
}

#[test]
fn a_directory_that_may_not_be_entered_is_an_error_at_build() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o000)).unwrap();
    let entered = std::fs::metadata(dir.path().join(".")).is_ok();
    let built = Files::of(dir.path()).build(&mut Builder::new("/"));
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    // Root enters everything.
    assert_eq!(built.is_ok(), entered);
}

#[test]
fn settings_are_read() {
    let read = |toml: &str| {
        let tree = parse_toml("f.toml", toml).unwrap();
        tree.decode::<Files>(&Path::root()).map_err(|error| error.to_string())
    };
    let files = read("files = \"static\"\nindex = \"home.html\"\nsymlinks = \"inside\"").unwrap();
    assert_eq!(
        serde_json::to_string(&files).unwrap(),
        r#"{"files":"static","index":["home.html"],"symlinks":"inside"}"#
    );
    assert!(read("files = \"static\"\nindx = \"x\"").unwrap_err().contains("did you mean 'index'"));
    assert!(read("files = \"static\"\nsymlinks = \"none\"").unwrap_err().contains("f.toml:2:12"));
}

#[tokio::test]
async fn a_wrong_method_is_told_before_a_missing_file() {
    let error = site().send(Request::builder().method(Method::DELETE).uri("/none")).await.unwrap_err();
    assert_eq!(error.status(), 405);
}
