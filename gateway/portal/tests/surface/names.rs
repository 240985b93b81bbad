//! No answer tells whether an account exists, or what it lacks.

use std::net::Ipv4Addr;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_trust::Claim;
use serde_json::json;

use crate::world::{Answer, Engine, HOST, ORIGIN, PASSWORD, Side, World};

/// Who cannot sign in, and why. All but one give the password that would be right.
const REFUSED: [(&str, &str, &str); 5] = [
    ("nobody", PASSWORD, "there is no such account"),
    ("ada", "a wrong password", "the password is wrong"),
    ("bob", PASSWORD, "the account has no device here"),
    ("carol", PASSWORD, "the account is disabled"),
    ("dave", PASSWORD, "the account has no password yet"),
];

/// Beyond those after which the answers are delayed.
const GUESSES: usize = 7;

#[derive(Clone, Copy, Debug)]
enum Way {
    Page(Side),
    Call(Side),
    Connect,
}

impl World {
    async fn guess(&self, way: Way, name: &str, password: &str) -> Answer {
        let (side, request) = match way {
            Way::Page(side) => {
                let fields = format!("username={name}&password={}", password.replace(' ', "+"));
                let form = "application/x-www-form-urlencoded";
                (side, post("/login", form, fields))
            }
            Way::Call(side) => {
                let body = json!({ "username": name, "password": password });
                (side, call("/api/v1/login", &body))
            }
            Way::Connect => (Side::Outside, self.proven(name, password).await),
        };
        let one = Ipv4Addr::new(192, 0, 2, 7);
        self.send_from(one, side, request).await
    }

    /// With a good proof of Ada's key, for whatever name.
    async fn proven(&self, username: &str, password: &str) -> Request<Body> {
        let device = self.key.public();
        let public_key = STANDARD.encode(device.as_bytes());
        let to = json!({ "location": "vault", "public_key": public_key });
        let asked = self.send(Side::Outside, call("/api/v1/connect/challenge", &to));
        let asked = asked.await.json();
        let challenge = asked["challenge"].as_str().unwrap();
        let location_key = asked["location_key"].as_str().unwrap();
        let location_key = STANDARD.decode(location_key).unwrap();
        let claim = Claim {
            challenge,
            location: "vault",
            username,
            device: device.as_bytes(),
            location_key: location_key.as_slice().try_into().unwrap(),
        };
        let own = STANDARD
            .decode(self.key.private_base64().as_bytes())
            .unwrap();
        let proof = claim.prove(own.as_slice().try_into().unwrap()).unwrap();
        let body = json!({
            "location": "vault", "public_key": public_key, "challenge": challenge,
            "proof": STANDARD.encode(proof.as_slice()), "username": username, "password": password,
        });
        call("/api/v1/connect", &body)
    }
}

fn post(path: &str, kind: &str, body: String) -> Request<Body> {
    let post = Request::post(path).header(header::HOST, HOST);
    let post = post.header(header::ORIGIN, ORIGIN);
    let post = post.header(header::CONTENT_TYPE, kind);
    post.body(Body::from(body)).unwrap()
}

fn call(path: &str, body: &serde_json::Value) -> Request<Body> {
    post(path, "application/json", body.to_string())
}

/// All of an answer but what was typed.
fn seen(mut answer: Answer, name: &str) -> (StatusCode, HeaderMap, String) {
    let length = answer.headers.remove(header::CONTENT_LENGTH);
    assert!(length.is_none_or(|length| length.to_str().unwrap() == answer.text.len().to_string()));
    let typed = format!("value=\"{name}\"");
    (
        answer.status,
        answer.headers,
        answer.text.replace(&typed, ""),
    )
}

#[tokio::test]
async fn a_refused_login_is_the_same_whoever_it_was_for() {
    for way in [
        Way::Page(Side::Inside),
        Way::Call(Side::Inside),
        Way::Page(Side::Outside),
        Way::Call(Side::Outside),
        Way::Connect,
    ] {
        let mut first = None;
        for (name, password, why) in REFUSED {
            let world = World::new(Engine::Sqlite).await;
            let mut answers = Vec::new();
            for _ in 0..GUESSES {
                let answer = world.guess(way, name, password).await;
                answers.push(seen(answer, name));
            }
            assert_eq!(answers[0].0, StatusCode::UNAUTHORIZED, "{way:?}: {why}");
            let last = &answers[GUESSES - 1];
            assert_eq!(last.0, StatusCode::TOO_MANY_REQUESTS, "{way:?}: {why}");
            assert!(!last.1.contains_key(header::SET_COOKIE), "{way:?}: {why}");
            let first = first.get_or_insert(answers.clone());
            for (at, (answer, other)) in answers.iter().zip(first).enumerate() {
                assert_eq!(answer, other, "{way:?}: {why}, attempt {at}");
            }
            world.a_day_later();
            let right = world.guess(way, "ada", PASSWORD).await;
            assert_eq!(right.status, StatusCode::OK, "{way:?}: {}", right.text);
        }
    }
}
