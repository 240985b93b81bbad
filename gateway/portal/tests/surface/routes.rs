//! Every route that changes something, with a request that it understands.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::request::Builder;
use axum::http::{Method, Request, StatusCode, header};

use crate::world::{Answer, Engine, HOST, ORIGIN, PASSWORD, Side, World};

/// What a route reads of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    Json(&'static str),
    Form(&'static str),
    Nothing,
}

impl Reads {
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Json(_) => "application/json",
            _ => "application/x-www-form-urlencoded",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Json(text) | Self::Form(text) => text,
            Self::Nothing => "",
        }
    }
}

use Reads::{Form, Json, Nothing};
use Side::{Inside, Outside, Provider};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) side: Side,
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) reads: Reads,
    /// What the request is answered: it is understood, also where there is no such thing to change.
    pub(crate) answered: u16,
}

const fn case(
    side: Side,
    method: &'static str,
    path: &'static str,
    reads: Reads,
    answered: u16,
) -> Case {
    Case {
        side,
        method,
        path,
        reads,
        answered,
    }
}

const CODE: Reads = Json(r#"{"code":"000000"}"#);
const NAMED: Reads = Json(r#"{"name":"Blue"}"#);
const CREATED: Reads = Json(
    r#"{"ceremony":"x","name":"Blue","credential":{"id":"AA","rawId":"AA","type":"public-key","response":{"attestationObject":"AA","clientDataJSON":"AA"}}}"#,
);
const ENROL_CREATED: Reads = Json(
    r#"{"enrolment":"x","name":"Blue","credential":{"id":"AA","rawId":"AA","type":"public-key","response":{"attestationObject":"AA","clientDataJSON":"AA"}}}"#,
);
const ASSERTED: Reads = Json(
    r#"{"ceremony":"x","credential":{"id":"AA","rawId":"AA","type":"public-key","response":{"authenticatorData":"AA","clientDataJSON":"AA","signature":"AA"}}}"#,
);
const OUTSIDE_ASSERTED: Reads = Json(
    r#"{"credential":{"id":"AA","rawId":"AA","type":"public-key","response":{"authenticatorData":"AA","clientDataJSON":"AA","signature":"AA"}}}"#,
);
const LOGIN: Reads = Json(r#"{"username":"ada","password":"correct horse battery"}"#);
const TOKEN: Reads = Json(r#"{"token":"x"}"#);
const APPROVED: Reads = Json(
    r#"{"token":"x","number":42,"credential":{"id":"AA","rawId":"AA","type":"public-key","response":{"authenticatorData":"AA","clientDataJSON":"AA","signature":"AA"}}}"#,
);
const LOGIN_FORM: Reads = Form("username=ada&password=correct+horse+battery");
/// The one that it is: the cases after it sign in by it.
const NEW_PASSWORD: Reads = Json(r#"{"password":"correct horse battery"}"#);

/// `{}` in a path stands for whatever there is; see [`World::path`].
pub(crate) const CASES: &[Case] = &[
    case(Inside, "POST", "/api/v1/login", LOGIN, 200),
    case(Inside, "POST", "/api/v1/login/{attempt}/totp", CODE, 401),
    case(
        Inside,
        "POST",
        "/api/v1/login/{attempt}/recovery",
        CODE,
        401,
    ),
    case(
        Inside,
        "POST",
        "/api/v1/login/{attempt}/phone",
        Nothing,
        401,
    ),
    case(
        Inside,
        "POST",
        "/api/v1/login/{attempt}/phone/finish",
        Nothing,
        410,
    ),
    case(Inside, "POST", "/api/v1/login/passkey/begin", Nothing, 404),
    case(
        Inside,
        "POST",
        "/api/v1/login/passkey/finish",
        ASSERTED,
        404,
    ),
    case(
        Inside,
        "POST",
        "/api/v1/login/{attempt}/passkey/begin",
        Nothing,
        404,
    ),
    case(
        Inside,
        "POST",
        "/api/v1/login/{attempt}/passkey/finish",
        ASSERTED,
        404,
    ),
    case(Inside, "DELETE", "/api/v1/session", Nothing, 200),
    case(
        Inside,
        "POST",
        "/api/v1/passkeys/register/begin",
        Nothing,
        200,
    ),
    case(
        Inside,
        "POST",
        "/api/v1/passkeys/register/finish",
        CREATED,
        404,
    ),
    case(Inside, "PATCH", "/api/v1/passkeys/{id}", NAMED, 404),
    case(Inside, "DELETE", "/api/v1/passkeys/{id}", Nothing, 404),
    case(
        Inside,
        "POST",
        "/api/v1/devices",
        Json(r#"{"name":"Tablet","public_key":"CQoJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk="}"#),
        201,
    ),
    case(Inside, "PATCH", "/api/v1/devices/{id}", NAMED, 204),
    case(Inside, "DELETE", "/api/v1/devices/{id}", Nothing, 200),
    case(Inside, "DELETE", "/api/v1/sessions/{id}", Nothing, 200),
    case(Inside, "POST", "/api/v1/sessions/end-others", Nothing, 200),
    case(
        Inside,
        "POST",
        "/api/v1/factors/password",
        NEW_PASSWORD,
        200,
    ),
    case(Inside, "POST", "/api/v1/factors/totp", Nothing, 201),
    case(Inside, "POST", "/api/v1/factors/totp/confirm", CODE, 409),
    case(
        Inside,
        "POST",
        "/api/v1/factors/recovery-codes",
        Json("{}"),
        201,
    ),
    case(
        Inside,
        "DELETE",
        "/api/v1/factors/sso/{provider}",
        Nothing,
        404,
    ),
    case(Inside, "POST", "/login", LOGIN_FORM, 200),
    case(
        Inside,
        "POST",
        "/login/{attempt}/totp",
        Form("code=000000"),
        401,
    ),
    case(
        Inside,
        "POST",
        "/login/{attempt}/recovery",
        Form("code=000000"),
        401,
    ),
    case(Inside, "POST", "/login/{attempt}/phone", Nothing, 401),
    case(
        Inside,
        "POST",
        "/login/{attempt}/phone/finish",
        Nothing,
        410,
    ),
    case(Inside, "POST", "/login/sso/{provider}", Nothing, 502),
    case(Inside, "POST", "/logout", Nothing, 303),
    case(
        Inside,
        "POST",
        "/passkeys/{id}/rename",
        Form("name=Blue"),
        404,
    ),
    case(
        Inside,
        "POST",
        "/passkeys/{id}/remove",
        Form("end_other_sessions=on"),
        404,
    ),
    case(
        Inside,
        "POST",
        "/devices",
        Form("name=Watch&public_key=CQsJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk%3D"),
        201,
    ),
    case(
        Inside,
        "POST",
        "/devices/{id}/rename",
        Form("name=Green"),
        303,
    ),
    case(Inside, "POST", "/devices/{id}/remove", Nothing, 303),
    case(Inside, "POST", "/sessions/end-others", Nothing, 303),
    case(Inside, "POST", "/sessions/{id}/end", Nothing, 303),
    case(
        Inside,
        "POST",
        "/factors/password",
        Form("password=correct+horse+battery&again=correct+horse+battery"),
        200,
    ),
    case(Inside, "POST", "/factors/totp", Nothing, 303),
    case(
        Inside,
        "POST",
        "/factors/totp/confirm",
        Form("code=000000"),
        409,
    ),
    case(
        Inside,
        "POST",
        "/factors/recovery-codes",
        Form("end_other_sessions=on"),
        201,
    ),
    case(
        Inside,
        "POST",
        "/factors/sso/{provider}/unlink",
        Form("end_other_sessions=on"),
        404,
    ),
    case(Outside, "POST", "/api/v1/login", LOGIN, 200),
    case(Outside, "POST", "/api/v1/login/totp", CODE, 404),
    case(Outside, "POST", "/api/v1/login/recovery", CODE, 404),
    case(Outside, "POST", "/api/v1/login/phone", Nothing, 404),
    case(Outside, "POST", "/api/v1/login/phone/finish", Nothing, 404),
    case(Outside, "POST", "/api/v1/login/passkey/begin", Nothing, 404),
    case(
        Outside,
        "POST",
        "/api/v1/login/passkey/finish",
        OUTSIDE_ASSERTED,
        404,
    ),
    case(
        Outside,
        "POST",
        "/api/v1/login/device",
        Json(r#"{"device":"x"}"#),
        404,
    ),
    case(Outside, "DELETE", "/api/v1/session", Nothing, 404),
    case(
        Outside,
        "POST",
        "/api/v1/enrol",
        Json(r#"{"token":"x"}"#),
        404,
    ),
    case(
        Outside,
        "POST",
        "/api/v1/enrol/password",
        Json(r#"{"enrolment":"x","password":"a fine new phrase"}"#),
        404,
    ),
    case(
        Outside,
        "POST",
        "/api/v1/enrol/totp",
        Json(r#"{"enrolment":"x","code":"000000"}"#),
        404,
    ),
    case(
        Outside,
        "POST",
        "/api/v1/enrol/passkey/begin",
        Json(r#"{"enrolment":"x"}"#),
        404,
    ),
    case(
        Outside,
        "POST",
        "/api/v1/enrol/passkey/finish",
        ENROL_CREATED,
        404,
    ),
    case(
        Outside,
        "POST",
        "/api/v1/enrol/device",
        Json(
            r#"{"enrolment":"x","name":"Blue","public_key":"CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk="}"#,
        ),
        404,
    ),
    case(
        Outside,
        "POST",
        "/api/v1/connect/challenge",
        Json(r#"{"location":"vault","public_key":"CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk="}"#),
        200,
    ),
    case(
        Outside,
        "POST",
        "/api/v1/connect",
        Json(
            r#"{"location":"vault","public_key":"CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=","challenge":"x","proof":"x","username":"ada","password":"correct horse battery"}"#,
        ),
        404,
    ),
    case(Outside, "POST", "/api/v1/connect/{attempt}/totp", CODE, 404),
    case(
        Outside,
        "POST",
        "/api/v1/connect/{attempt}/recovery",
        CODE,
        404,
    ),
    case(
        Outside,
        "POST",
        "/api/v1/connect/enrol",
        Json(
            r#"{"location":"vault","public_key":"CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=","challenge":"x","proof":"x","username":"ada","invitation":"x","name":"Blue"}"#,
        ),
        404,
    ),
    case(
        Outside,
        "POST",
        "/api/v1/connect/{attempt}/phone",
        Nothing,
        404,
    ),
    case(
        Outside,
        "POST",
        "/api/v1/connect/{attempt}/phone/finish",
        Nothing,
        404,
    ),
    case(
        Outside,
        "POST",
        "/api/v1/connect/passkey",
        Json(
            r#"{"location":"vault","public_key":"CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=","challenge":"x","proof":"x","username":"ada","port":40000}"#,
        ),
        404,
    ),
    case(
        Outside,
        "POST",
        "/api/v1/connect/{attempt}/passkey/finish",
        CODE,
        404,
    ),
    case(
        Outside,
        "POST",
        "/api/v1/connect/sso",
        Json(
            r#"{"location":"vault","public_key":"CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=","challenge":"x","proof":"x","username":"ada","provider":"acme","port":40000}"#,
        ),
        404,
    ),
    case(
        Outside,
        "POST",
        "/api/v1/connect/{attempt}/sso/finish",
        Json(r#"{"provider":"acme","state":"x","code":"x"}"#),
        404,
    ),
    case(Outside, "POST", "/api/v1/approve", TOKEN, 404),
    case(Outside, "POST", "/api/v1/approve/begin", TOKEN, 404),
    case(Outside, "POST", "/api/v1/approve/finish", APPROVED, 404),
    case(Outside, "POST", "/api/v1/approve/deny", TOKEN, 404),
    case(Outside, "DELETE", "/api/v1/connect/session", Nothing, 401),
    case(Outside, "POST", "/enrol", Form("link=x"), 404),
    case(
        Outside,
        "POST",
        "/enrol/password",
        Form("enrolment=x&password=a+fine+new+phrase&again=a+fine+new+phrase"),
        404,
    ),
    case(
        Outside,
        "POST",
        "/enrol/totp",
        Form("enrolment=x&code=000000"),
        404,
    ),
    case(Outside, "POST", "/login", LOGIN_FORM, 200),
    case(Outside, "POST", "/login/totp", Form("code=000000"), 404),
    case(Outside, "POST", "/login/recovery", Form("code=000000"), 404),
    case(Outside, "POST", "/login/phone", Nothing, 404),
    case(Outside, "POST", "/login/phone/finish", Nothing, 404),
    case(Outside, "POST", "/login/device", Form("device=x"), 404),
    case(Outside, "POST", "/logout", Nothing, 303),
    case(
        Provider,
        "POST",
        "/sso/{provider}/backchannel",
        Form("logout_token=x"),
        503,
    ),
];

impl Case {
    /// As one of our own pages or programs sends it, with another body.
    pub(crate) fn with(&self, path: &str, kind: &str, body: impl Into<Body>) -> Request<Body> {
        let request = self.bare(path).header(header::ORIGIN, ORIGIN);
        let request = request.header(header::CONTENT_TYPE, kind);
        request.body(body.into()).unwrap()
    }

    /// As nobody in particular sends it.
    pub(crate) fn bare(&self, path: &str) -> Builder {
        let request = Request::builder().method(self.method).uri(path);
        request.header(header::HOST, HOST)
    }

    pub(crate) fn understood(&self, path: &str) -> Request<Body> {
        self.with(path, self.reads.kind(), self.reads.text())
    }

    pub(crate) fn body(&self) -> &'static str {
        self.reads.text()
    }
}

impl World {
    /// The route's path with what there is: a login half-way, a device that is neither laptop nor phone, the
    /// phone's session, the provider.
    pub(crate) async fn path(&self, case: &Case) -> String {
        let mut path = case.path.replace("{provider}", "acme");
        if path.contains("{attempt}") {
            let login = format!(r#"{{"username":"ada","password":"{PASSWORD}"}}"#);
            let request = Request::post("/api/v1/login")
                .header(header::HOST, HOST)
                .header(header::CONTENT_TYPE, "application/json");
            let begun = self
                .send(Inside, request.body(Body::from(login)).unwrap())
                .await;
            path = path.replace("{attempt}", begun.json()["attempt"].as_str().unwrap());
        }
        for (list, word, kept) in [("devices", "name", "phone"), ("sessions", "device", "")] {
            if path.contains(&format!("/{list}/{{id}}")) {
                let get = Request::get(format!("/api/v1/{list}"));
                let get = get.header(header::HOST, HOST).body(Body::empty()).unwrap();
                let all = self.send(Inside, get).await.json();
                let mut all = all[list].as_array().unwrap().iter();
                let other = all.find(|one| one[word] != "laptop" && one[word] != kept);
                let other = other.unwrap_or_else(|| panic!("{case:?}"));
                path = path.replace("{id}", other["id"].as_str().unwrap());
            }
        }
        path.replace("{id}", "none")
    }
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{}", self.text))
    }
}

/// What a router takes at each path: axum shows the paths in its debugging output alone.
pub(crate) async fn routed(world: &World, side: Side) -> BTreeSet<(String, String)> {
    let shown = format!("{:?}", world.router(side));
    let paths: BTreeSet<_> = shown
        .split('"')
        .filter(|part| part.starts_with('/') && !part.contains("__private"))
        .collect();
    let mut routed = BTreeSet::new();
    for path in paths {
        // No route takes this method: the answer names those that are taken.
        let request = Request::builder().method(Method::TRACE).uri(path);
        let answer = world.send(side, request.body(Body::empty()).unwrap()).await;
        // Where there is no first page, axum keeps its answer for what is not there.
        if path == "/" && answer.status == StatusCode::NOT_FOUND {
            continue;
        }
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        let allowed = answer.headers[header::ALLOW].to_str().unwrap();
        let methods = allowed.split(',').filter(|method| *method != "HEAD");
        routed.extend(methods.map(|method| (method.to_owned(), path.to_owned())));
    }
    routed
}

#[tokio::test]
async fn every_route_that_changes_something_has_a_case_that_it_understands() {
    let world = World::new(Engine::Sqlite).await;
    let mut wrong = Vec::new();
    for side in [Inside, Outside, Provider] {
        let routed = routed(&world, side).await;
        let changing = routed.into_iter().filter(|(method, _)| method != "GET");
        let cases = CASES.iter().filter(|case| case.side == side);
        let cases: BTreeSet<_> = cases
            .map(|case| (case.method.to_owned(), case.path.to_owned()))
            .collect();
        assert_eq!(changing.collect::<BTreeSet<_>>(), cases, "{side:?}");
    }
    for case in CASES {
        world.a_day_later();
        world.sign_in("laptop").await;
        world.sign_in("phone").await;
        let path = world.path(case).await;
        let answer = world.send(case.side, case.understood(&path)).await;
        if answer.status.as_u16() != case.answered {
            wrong.push(format!("{case:?}: {} {}", answer.status, answer.text));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
