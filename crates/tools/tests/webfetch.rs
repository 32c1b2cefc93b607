//! `webfetch` (recording 16).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod support;

use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tools::{Output, ToolError};

const PAGE: &str = "<html><head><title>T</title></head><body><h1>Head</h1><p>para <b>bold</b></p></body></html>";

/// A web server on this machine; it ends when it is dropped.
struct Site {
    port: u16,
    server: AbortHandle,
    /// Told at each request for the slow page.
    slow: Arc<Notify>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Site {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let slow = Arc::new(Notify::new());
        let asked = slow.clone();
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let asked = asked.clone();
                tokio::spawn(async move {
                    let mut request = vec![0; 4096];
                    let length = stream.read(&mut request).await.unwrap_or(0);
                    let request = String::from_utf8_lossy(&request[..length]).into_owned();
                    let path = request.split(' ').nth(1).unwrap_or("/").to_owned();
                    let _ = stream.write_all(&answer(&path, &request, port)).await;
                    if path == "/slow" {
                        asked.notify_one();
                    }
                    if path == "/slow" || path == "/never" {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Self { port, server: server.abort_handle(), slow }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

fn answer(path: &str, request: &str, port: u16) -> Vec<u8> {
    let page = |kind: &str, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    };
    let to = |place: String| {
        format!("HTTP/1.1 302 Found\r\nlocation: {place}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .into_bytes()
    };
    match path {
        "/page" => page("text/html; charset=utf-8", PAGE.as_bytes()),
        "/image" => page("image/png", b"\x89PNG\0"),
        "/binary" => page("application/zip", b"PK\0"),
        "/asked" => page("text/plain", request.as_bytes()),
        "/lines" => page("text/plain", "row\n".repeat(3000).as_bytes()),
        "/large" => b"HTTP/1.1 200 OK\r\ncontent-length: 5242881\r\nconnection: close\r\n\r\n".to_vec(),
        "/endless" => {
            let head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
            [head, vec![b'x'; 6 * 1024 * 1024]].concat()
        }
        "/slow" | "/never" => b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nx".to_vec(),
        "/moved" => to("/page".into()),
        "/circle" => to("/circle".into()),
        "/inside" => to(format!("http://127.0.0.2:{port}/page")),
        "/metadata" => to("http://169.254.169.254/latest/meta-data/".into()),
        "/by-name" => to(format!("http://localhost:{port}/page")),
        "/file" => to("file:///etc/passwd".into()),
        _ => b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\nconnection: close\r\n\r\nnope".to_vec(),
    }
}

fn world(allowed: &[&str]) -> World {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let allowed: Vec<tools::Network> = allowed.iter().map(|text| text.parse().unwrap()).collect();
    World::with(|settings| settings.fetch_allowed = allowed.into())
}

#[tokio::test]
async fn a_page_comes_in_the_form_that_is_asked_for() {
    let (world, site) = (world(&["127.0.0.1"]), Site::start().await);
    let url = site.url("/page");
    for (format, text) in
        [("markdown", "T\n\n# Head\n\npara **bold**"), ("text", "T\n\nHead\n\npara bold"), ("html", PAGE)]
    {
        let output = world.run("webfetch", json!({ "url": url, "format": format })).await.unwrap();
        let title = format!("{url} (text/html; charset=utf-8)");
        let metadata = json!({ "truncated": false });
        assert_eq!(output, Output { title, output: text.into(), metadata, attachments: None });
    }
    let ask = &world.host.asks()[0];
    assert_eq!((ask.permission.as_str(), &ask.patterns[..]), ("webfetch", &[url.clone()][..]));
    assert_eq!((&ask.always[..], &ask.metadata), (&["*".into()][..], &json!({ "url": url, "format": "markdown" })));
    let output = world.run("webfetch", json!({ "url": url, "timeout": 5 })).await.unwrap();
    assert!(output.output.contains("# Head"), "Markdown where nothing is said");
    assert_eq!(world.host.asks()[3].metadata["timeout"], 5);

    let output = world.run("webfetch", json!({ "url": site.url("/image") })).await.unwrap();
    assert_eq!(output.output, "Image fetched successfully");
    let image = json!({ "type": "file", "mime": "image/png", "url": "data:image/png;base64,iVBORwA=" });
    assert_eq!(output.attachments, Some(vec![image]));
    let output = world.run("webfetch", json!({ "url": site.url("/asked"), "format": "text" })).await.unwrap();
    assert!(output.output.to_lowercase().contains("accept: text/plain,"), "{}", output.output);
}

#[tokio::test]
async fn what_is_no_page_is_told() {
    let (world, site) = (world(&["127.0.0.1"]), Site::start().await);
    for (url, told) in [
        (site.url("/404"), format!("StatusCode: non 2xx status code (404 GET {})", site.url("/404"))),
        ("ftp://x".into(), "URL must start with http:// or https://".into()),
        ("http://127.0.0.1:1/".into(), "Transport error (GET http://127.0.0.1:1/)".into()),
        ("http://".into(), "http://".into()),
        (site.url("/binary"), "This is no text".into()),
        (site.url("/large"), "Response too large (exceeds 5 MB)".into()),
        (site.url("/endless"), "Response too large (exceeds 5 MB)".into()),
        (site.url("/circle"), "More than 10 redirects".into()),
        (site.url("/file"), "URL must start with http:// or https://".into()),
    ] {
        let failure = world.failure("webfetch", json!({ "url": url, "format": "text" })).await;
        assert!(failure.starts_with(&told), "{failure}");
    }
    assert_eq!(world.host.asks().len(), 7, "what is no address is not asked for");
}

#[tokio::test]
async fn a_long_page_is_shortened_and_kept() {
    let (world, site) = (world(&["127.0.0.1"]), Site::start().await);
    let output = world.run("webfetch", json!({ "url": site.url("/lines") })).await.unwrap();
    assert_eq!(output.metadata["truncated"], true);
    let kept = output.metadata["outputPath"].as_str().unwrap();
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "row\n".repeat(3000));
    assert!(output.output.contains("...1000 lines truncated...") && output.output.contains(kept), "{}", output.output);
}

#[tokio::test]
async fn a_page_that_does_not_come_is_not_waited_for() {
    let (world, site) = (world(&["127.0.0.1"]), Site::start().await);
    let begun = Instant::now();
    let failure = world.failure("webfetch", json!({ "url": site.url("/never"), "timeout": 0.3 })).await;
    assert!(failure.starts_with("Not done within 0.3 s"), "{failure}");
    let (call, slow) = (world.call.clone(), site.slow.clone());
    let abort = tokio::spawn(async move {
        slow.notified().await;
        call.cancel.cancel();
    });
    assert_eq!(world.run("webfetch", json!({ "url": site.url("/slow") })).await, Err(ToolError::Aborted));
    assert!(begun.elapsed() < Duration::from_secs(15), "both end long before the ordinary time is over");
    abort.await.unwrap();
}

#[tokio::test]
async fn addresses_of_private_networks_are_refused_however_they_are_reached() {
    let site = Site::start().await;
    let refused = |failure: &str| failure.contains("may not be fetched here") && failure.contains("--webfetch-allow");
    let fetch = |world: &World, url: String| {
        let (call, host) = (world.call.clone(), world.host.clone());
        let tool = tools::Registry::builtin().get("webfetch").unwrap();
        async move {
            let fetched = tools::perform(&*tool, json!({ "url": url }), &call).await;
            drop(host);
            match fetched {
                Ok(output) => Ok(output.output),
                Err(ToolError::Failed(text)) => Err(text),
                Err(other) => panic!("{other:?}"),
            }
        }
    };
    // Nothing is allowed: by number, in other ways to write numbers, by name.
    let nothing = world(&[]);
    let port = site.port;
    for host in
        ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]"]
    {
        let failure = fetch(&nothing, format!("http://{host}:{port}/page")).await.unwrap_err();
        assert!(refused(&failure), "{host}: {failure}");
    }
    // One address is allowed, and what it redirects to is looked at again.
    let one = world(&["127.0.0.1"]);
    assert!(fetch(&one, site.url("/moved")).await.unwrap().contains("# Head"));
    assert!(fetch(&one, site.url("/by-name")).await.unwrap().contains("# Head"));
    for path in ["/inside", "/metadata"] {
        let failure = fetch(&one, site.url(path)).await.unwrap_err();
        assert!(refused(&failure), "{path}: {failure}");
    }
}

#[tokio::test]
async fn nothing_is_fetched_without_permission() {
    let (world, site) = (world(&["127.0.0.1"]), Site::start().await);
    let rejected = ToolError::Rejected { feedback: None };
    *world.host.answer.lock().unwrap() = Some(("webfetch", rejected.clone()));
    let input: Value = json!({ "url": site.url("/page") });
    assert_eq!(world.run("webfetch", input).await, Err(rejected));
}
