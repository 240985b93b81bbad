//! The portal leads nobody to another site.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Request, Uri, header};

use crate::routes::{CASES, routed};
use crate::world::{Answer, Engine, HOST, ORIGIN, Side, World};

/// Where an address might be asked for. None of these is anything to the portal, but for the last five.
const NAMES: [&str; 15] = [
    "next",
    "return",
    "return_to",
    "url",
    "to",
    "continue",
    "redirect",
    "redirect_uri",
    "post_logout_redirect_uri",
    "target",
    "for",
    "state",
    "iss",
    "code",
    "error",
];

const HOSTILE: [&str; 11] = [
    "//evil.example",
    "///evil.example",
    "https://evil.example",
    "https:evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/%09/evil.example",
    "%2f%2fevil.example",
    "/..//evil.example",
    "%0d%0aLocation:%20https://evil.example",
    "javascript:evil.example",
];

fn query(value: &str) -> String {
    let pairs: Vec<_> = NAMES.iter().map(|name| format!("{name}={value}")).collect();
    pairs.join("&")
}

/// Where an answer leads, if anywhere.
fn led(answer: &Answer, what: &str) -> Option<String> {
    for attribute in [
        "href=\"",
        "action=\"",
        "src=\"",
        "content=\"",
        "data-begin=\"",
    ] {
        let values = answer.text.split(attribute).skip(1);
        for value in values.filter_map(|rest| rest.split('"').next()) {
            assert!(!value.contains("evil"), "{what}: {attribute}{value}");
        }
    }
    for name in [header::REFRESH, header::LINK, header::CONTENT_LOCATION] {
        assert!(!answer.headers.contains_key(&name), "{what}: {name}");
    }
    let to = answer.headers.get(header::LOCATION)?;
    let to = to.to_str().unwrap().to_owned();
    let ours = to.starts_with('/') && !to.contains("evil") && !to.contains("//");
    assert!(ours && !to.contains('\\'), "{what}: {to}");
    Some(to)
}

#[tokio::test]
async fn nothing_that_is_asked_for_leads_elsewhere() {
    let world = World::new(Engine::Sqlite).await;
    world.sign_in("laptop").await;
    let mut places = BTreeSet::new();
    for side in [Side::Inside, Side::Outside] {
        for (method, path) in routed(&world, side).await {
            if method != "GET" || path == "/captive-portal/api" {
                continue;
            }
            for hostile in HOSTILE {
                let path = path.replace("{provider}", "acme");
                let path = format!("{path}?{}", query(hostile));
                let get = Request::get(&path)
                    .header(header::HOST, HOST)
                    .header(header::REFERER, "https://evil.example/")
                    .header("x-forwarded-host", "evil.example")
                    .header("x-forwarded-proto", "http")
                    .header("x-original-url", "//evil.example")
                    .header("forwarded", "host=evil.example");
                let get = get.body(Body::empty()).unwrap();
                places.extend(led(&world.send(side, get).await, &path));
            }
        }
        // Addresses that are no page.
        for path in [
            "//evil.example",
            "//evil.example/%2e%2e",
            "/%5cevil.example",
            "/devices//evil.example/",
        ] {
            path.parse::<Uri>().unwrap();
            let get = Request::get(path).body(Body::empty()).unwrap();
            assert_eq!(led(&world.send(side, get).await, path), None, "{path}");
        }
    }
    for (at, case) in CASES.iter().enumerate() {
        world.a_day_later();
        world.sign_in("laptop").await;
        world.sign_in("phone").await;
        let hostile = HOSTILE[at % HOSTILE.len()];
        let path = format!("{}?{}", world.path(case).await, query(hostile));
        // Also where it is sent with the rest of a form.
        let body = match case.reads.kind() {
            "application/json" => case.body().to_owned(),
            _ => format!("{}&{}", case.body(), query(hostile)),
        };
        let mut request = case.with(&path, case.reads.kind(), body);
        let headers = request.headers_mut();
        headers.insert("x-forwarded-host", "evil.example".parse().unwrap());
        headers.insert(
            header::REFERER,
            format!("{ORIGIN}//evil.example").parse().unwrap(),
        );
        places.extend(led(&world.send(case.side, request).await, &path));
    }
    let expected = ["/", "/devices", "/factors", "/factors/totp", "/sessions"];
    assert_eq!(places, expected.map(str::to_owned).into());
}
