//! What another site's page can make a browser send.

use axum::body::Body;
use axum::http::{Request, StatusCode, header};

use crate::routes::{CASES, Reads, routed};
use crate::world::{Engine, HOST, ORIGIN, Side, World};

const SITE: &str = "sec-fetch-site";

/// Of a browser at another site, or of one that does not say where it is.
const ELSEWHERE: [&[(&str, &str)]; 8] = [
    &[("origin", "https://evil.example")],
    &[("origin", "null")],
    &[("origin", "http://login.example.com")],
    &[("origin", "https://login.example.com:8443")],
    &[("origin", "https://login.example.com.evil.example")],
    &[("origin", ORIGIN), (SITE, "cross-site")],
    &[("origin", ORIGIN), (SITE, "same-site")],
    &[(SITE, "cross-site")],
];

#[tokio::test]
async fn no_other_site_changes_anything() {
    let mut world = World::new(Engine::Sqlite).await;
    world.sign_in("laptop").await;
    world.sign_in("phone").await;
    // Providers are no browsers: what they tell is signed.
    for case in CASES.iter().filter(|case| case.side != Side::Provider) {
        let path = world.path(case).await;
        let before = world.written().await;
        // A form of another site can be of these kinds, and a browser asks before it sends any other.
        for kind in [
            case.reads.kind(),
            "text/plain",
            "multipart/form-data; boundary=x",
        ] {
            for headers in ELSEWHERE {
                let mut request = case.bare(&path).header(header::CONTENT_TYPE, kind);
                for (name, value) in headers {
                    request = request.header(*name, *value);
                }
                let request = request.body(Body::from(case.body())).unwrap();
                let answer = world.send(case.side, request).await;
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{case:?} {headers:?}");
            }
        }
        if let Reads::Form(text) = case.reads {
            let request = case.bare(&path);
            let request = request.header(header::CONTENT_TYPE, case.reads.kind());
            let request = request.body(Body::from(text)).unwrap();
            let answer = world.send(case.side, request).await;
            assert_eq!(
                answer.status,
                StatusCode::FORBIDDEN,
                "{case:?} says nothing"
            );
        }
        assert_eq!(world.written().await, before, "{case:?}");
    }
    // The same of our own page.
    for case in CASES {
        world.a_day_later();
        world.sign_in("laptop").await;
        world.sign_in("phone").await;
        let path = world.path(case).await;
        let answer = world.send(case.side, case.understood(&path)).await;
        assert_eq!(answer.status.as_u16(), case.answered, "{case:?}");
    }
}

/// Links, images and addresses that are looked at beforehand can come from anywhere.
#[tokio::test]
async fn what_only_reads_changes_nothing() {
    let mut world = World::new(Engine::Sqlite).await;
    world.sign_in("laptop").await;
    let before = world.written().await;
    let mut tried = 0;
    for side in [Side::Inside, Side::Outside, Side::Provider] {
        for (method, path) in routed(&world, side).await {
            // It needs the address of the connection's own end, which nobody has here.
            if method != "GET" || path == "/captive-portal/api" {
                continue;
            }
            let path = path.replace("{provider}", "acme");
            for path in [path.clone(), format!("{path}?state=x&code=x&device=x")] {
                let get = Request::get(&path).header(header::HOST, HOST);
                let get = get.header(SITE, "cross-site").body(Body::empty()).unwrap();
                let answer = world.send(side, get).await;
                assert!(!answer.status.is_server_error(), "{path} {}", answer.status);
                assert_eq!(world.written().await, before, "{side:?} {path}");
                tried += 1;
            }
        }
    }
    assert!(tried > 50, "{tried}");
}
