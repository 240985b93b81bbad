//! Bodies that are too large, and bodies and paths that are not what they should be.

use axum::body::Body;
use axum::http::{Request, StatusCode, Uri};
use serde_json::Value;

use crate::routes::{CASES, Case, Reads};
use crate::world::{Engine, Side, World};

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";
/// Bytes that the portal takes, at most.
const MOST: usize = 16 * 1024;

async fn signed_in(engine: Engine) -> World {
    let world = World::new(engine).await;
    world.sign_in("laptop").await;
    world.sign_in("phone").await;
    world
}

/// What the route understands, made so long by what does not matter.
fn padded(case: &Case, length: usize) -> String {
    let mut text = case.body().to_owned();
    let left = length - text.len();
    match case.reads {
        Reads::Json(_) => text.push_str(&" ".repeat(left)),
        _ => text.push_str(&format!("&x={}", "x".repeat(left - 3))),
    }
    text
}

/// Whether the route reads a body or not.
#[tokio::test]
async fn what_is_too_large_is_refused_and_changes_nothing() {
    let mut world = signed_in(Engine::Sqlite).await;
    for case in CASES {
        let path = world.path(case).await;
        let before = world.written().await;
        let expected = match case.side {
            // OpenID Connect Back-Channel Logout 1.0, section 2.8, has one answer for all that is wrong.
            Side::Provider => StatusCode::BAD_REQUEST,
            _ => StatusCode::PAYLOAD_TOO_LARGE,
        };
        for length in [MOST + 1, 1 << 20] {
            let request = case.with(&path, case.reads.kind(), padded(case, length));
            let answer = world.send(case.side, request).await;
            assert_eq!(answer.status, expected, "{case:?} {}", answer.text);
        }
        assert_eq!(world.written().await, before, "{case:?}");
    }
    for case in CASES {
        world.a_day_later();
        world.sign_in("laptop").await;
        world.sign_in("phone").await;
        let path = world.path(case).await;
        let request = case.with(&path, case.reads.kind(), padded(case, MOST));
        let answer = world.send(case.side, request).await;
        let status = answer.status.as_u16();
        assert_eq!(status, case.answered, "{case:?} {}", answer.text);
    }
}

/// Of a content type, and what it claims to be.
fn malformed(case: &Case) -> Vec<(&'static str, Vec<u8>)> {
    let good = case.body().as_bytes().to_vec();
    match case.reads {
        Reads::Json(text) => vec![
            (JSON, Vec::new()),
            (JSON, b"{".to_vec()),
            (JSON, b"null".to_vec()),
            (JSON, b"[{}]".to_vec()),
            (JSON, b"{\"x\":1}".to_vec()),
            (JSON, b"\0".to_vec()),
            (JSON, b"\xff\xfe{}".to_vec()),
            (JSON, [text.as_bytes(), b"\xff"].concat()),
            (JSON, "[".repeat(8000).into_bytes()),
            (JSON, format!("{text}{text}").into_bytes()),
            ("text/plain", good.clone()),
            (FORM, good.clone()),
            ("multipart/form-data; boundary=x", good),
        ],
        Reads::Form(text) => {
            let mut all = vec![
                ("text/plain", good.clone()),
                (JSON, good.clone()),
                ("multipart/form-data; boundary=x", good),
                (FORM, format!("{text}&{text}").into_bytes()),
            ];
            // A checkbox that is not ticked is not there.
            if !text.starts_with("end_other_sessions") {
                all.extend([
                    (FORM, Vec::new()),
                    (FORM, b"%ff=%fe".to_vec()),
                    (FORM, b"\xff\xfe\0".to_vec()),
                    (FORM, "&".repeat(8000).into_bytes()),
                ]);
            }
            all
        }
        Reads::Nothing => Vec::new(),
    }
}

#[tokio::test]
async fn what_is_malformed_is_refused_and_changes_nothing() {
    let mut world = signed_in(Engine::Sqlite).await;
    let mut wrong = Vec::new();
    for case in CASES {
        let path = world.path(case).await;
        let before = world.written().await;
        for (kind, body) in malformed(case) {
            let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
            let answer = world.send(case.side, case.with(&path, kind, body)).await;
            if !answer.status.is_client_error() || world.written().await != before {
                wrong.push(format!(
                    "{} {} {kind} {shown:?}: {}",
                    case.method, case.path, answer.status
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a store or a header may stumble over, in each field of a body.
const ODD: [&str; 6] = [
    "a\0b",
    "\0",
    "\u{fffd}",
    "\u{202e}x\r\ny",
    "' OR 1=1 --",
    "%00",
];

fn odd_bodies(case: &Case, odd: &str) -> Vec<String> {
    match case.reads {
        Reads::Json(text) => {
            let good: Value = serde_json::from_str(text).unwrap();
            let fields = good.as_object().unwrap().keys();
            let strings = fields.filter(|field| good[field.as_str()].is_string());
            let each = strings.map(|field| {
                let mut body = good.clone();
                body[field.as_str()] = odd.into();
                body.to_string()
            });
            each.collect()
        }
        Reads::Form(text) => {
            let encoded: String = odd.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let fields: Vec<_> = text.split('&').collect();
            let each = (0..fields.len()).map(|at| {
                let mut body = fields.clone();
                let (name, _) = body[at].split_once('=').unwrap();
                let field = format!("{name}={encoded}");
                body[at] = &field;
                body.join("&")
            });
            each.collect()
        }
        Reads::Nothing => Vec::new(),
    }
}

async fn odd_values_are_no_ones_fault_but_the_senders(engine: Engine) {
    let world = signed_in(engine).await;
    let mut wrong = Vec::new();
    for case in CASES {
        for odd in ODD {
            world.sign_in("laptop").await;
            let path = match case.path.contains("{attempt}") {
                true => case.path.replace("{attempt}", "none"),
                false => world.path(case).await,
            };
            for body in odd_bodies(case, odd) {
                let request = case.with(&path, case.reads.kind(), body.clone());
                let answer = world.send(case.side, request).await;
                // 503: nobody is where the provider of these tests should be.
                if answer.status.is_server_error() && case.side != Side::Provider {
                    wrong.push(format!(
                        "{} {} {body:?}: {}",
                        case.method, case.path, answer.status
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// For each thing that a path names.
const ODD_PATHS: [&str; 7] = [
    "%00",
    "a%00b",
    "%ff%fe",
    "%c0%80",
    "..%2f..%2f",
    "%E2%80%AE",
    "%27",
];

async fn odd_paths_are_no_ones_fault_but_the_senders(engine: Engine) {
    let world = signed_in(engine).await;
    let mut wrong = Vec::new();
    let mut tried = 0;
    let long = "x".repeat(8000);
    for case in CASES.iter().filter(|case| case.path.contains('{')) {
        for odd in ODD_PATHS.into_iter().chain([long.as_str()]) {
            let (start, rest) = case.path.split_once('{').unwrap();
            let (_, end) = rest.split_once('}').unwrap();
            let path = format!("{start}{odd}{end}");
            path.parse::<Uri>().unwrap();
            let answer = world.send(case.side, case.understood(&path)).await;
            // A session that is over by now is what was asked for.
            let is_over = case.path == "/sessions/{id}/end" && answer.status.is_redirection();
            if !answer.status.is_client_error() && !is_over {
                let odd = &odd[..odd.len().min(20)];
                wrong.push(format!(
                    "{} {} {odd}: {}",
                    case.method, case.path, answer.status
                ));
            }
            tried += 1;
        }
    }
    assert!(
        wrong.is_empty() && tried > 100,
        "{tried}\n{}",
        wrong.join("\n")
    );
    // The same in what only reads.
    for (side, path) in [
        (Side::Inside, "/step-up?for=%00%ff"),
        (Side::Inside, "/login/sso/%00"),
        (Side::Inside, "/login/sso/%ff/callback?state=x"),
        (
            Side::Inside,
            "/login/sso/acme/callback?state=%00&code=%00&iss=%00",
        ),
        (Side::Inside, "/login/sso/acme/callback?state=%ff&error=%00"),
        (Side::Outside, "/?%00=%ff"),
        (Side::Outside, "/enrol?%00"),
    ] {
        let get = Request::get(path).body(Body::empty()).unwrap();
        let answer = world.send(side, get).await;
        assert!(!answer.status.is_server_error(), "{path} {}", answer.status);
    }
}

mod on_sqlite {
    use super::Engine::Sqlite;

    #[tokio::test]
    async fn odd_values_are_no_ones_fault_but_the_senders() {
        super::odd_values_are_no_ones_fault_but_the_senders(Sqlite).await;
    }

    #[tokio::test]
    async fn odd_paths_are_no_ones_fault_but_the_senders() {
        super::odd_paths_are_no_ones_fault_but_the_senders(Sqlite).await;
    }
}

mod on_postgres {
    use super::Engine::Postgres;

    #[tokio::test]
    async fn odd_values_are_no_ones_fault_but_the_senders() {
        super::odd_values_are_no_ones_fault_but_the_senders(Postgres).await;
    }

    #[tokio::test]
    async fn odd_paths_are_no_ones_fault_but_the_senders() {
        super::odd_paths_are_no_ones_fault_but_the_senders(Postgres).await;
    }
}
