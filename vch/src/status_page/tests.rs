//! The page's answers, without a listener: what is refused, and what comes with every answer.

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use tempfile::TempDir;
use tower::ServiceExt as _;

use super::*;

struct Fixture {
    _dir: TempDir,
    app: Router,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let containers = Containers::open(&dir.path().join("serve"), 1 << 20).unwrap();
    let listeners = [("links", vec!["tcp://127.0.0.1:8080".into()]), ("docker", vec![]), ("status", vec![])];
    Fixture { _dir: dir, app: router(Page::new(containers, listeners)) }
}

impl Fixture {
    async fn ask(&self, method: &str, path: &str) -> (StatusCode, axum::http::HeaderMap, String) {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers, String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[tokio::test]
async fn nothing_but_get_is_taken() {
    let page = fixture();
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        for path in ["/", "/status.json", "/nowhere"] {
            let (status, headers, _) = page.ask(method, path).await;
            assert!(status == StatusCode::METHOD_NOT_ALLOWED && headers["allow"] == "GET, HEAD", "{method}");
        }
    }
    let (status, _, body) = page.ask("HEAD", "/").await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, ""));
    assert_eq!(page.ask("GET", "/health").await.0, StatusCode::OK);
}

#[tokio::test]
async fn every_answer_is_kept_by_nobody_and_runs_nothing() {
    let page = fixture();
    for path in ["/", "/status.json", "/health", "/nowhere", "/containers/none", "/logs.tar.gz"] {
        let (_, headers, _) = page.ask("GET", path).await;
        assert!(headers["cache-control"] == "no-store" && headers["x-content-type-options"] == "nosniff", "{path}");
        assert!(headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'; "), "{path}");
        assert!(!headers.contains_key("set-cookie"), "{path}");
    }
}

#[tokio::test]
async fn a_host_without_containers_has_a_page() {
    let page = fixture();
    let (status, headers, body) = page.ask("GET", "/").await;
    assert!(status == StatusCode::OK && headers["content-type"] == "text/html; charset=utf-8");
    for part in
        ["<html lang=\"en\">", "<title>Virtual Container Host", "No VM has connected yet.", "tcp://127.0.0.1:8080"]
    {
        assert!(body.contains(part), "{part}: {body}");
    }
    let (status, _, body) = page.ask("GET", "/containers/%3Cscript%3E").await;
    assert!(status == StatusCode::NOT_FOUND && !body.contains("<script"), "{body}");
    let facts: serde_json::Value = serde_json::from_str(&page.ask("GET", "/status.json").await.2).unwrap();
    assert_eq!((facts["host"]["running"].as_u64(), facts["containers"].as_array().map(Vec::len)), (Some(0), Some(0)));
}
