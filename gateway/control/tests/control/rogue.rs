//! An OpenID Provider that does what it is told, right or wrong.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openidconnect::core::{CoreEdDsaPrivateSigningKey, CoreJwsSigningAlgorithm};
use openidconnect::{JsonWebKeyId, PrivateSigningKey as _};
use portcullis_control::SsoConfig;
use serde_json::{Value, json};

use crate::fixture::World;

pub(crate) const CLIENT: &str = "portcullis-test";
pub(crate) const SECRET: &str = "a secret that both know";

/// A provider on loopback, until dropped.
pub(crate) struct Rogue {
    pub(crate) issuer: String,
    inner: Arc<Inner>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Inner {
    issuer: Mutex<String>,
    /// What it calls itself in its metadata, if not what it is.
    claims_to_be: Mutex<Option<String>>,
    keys: Mutex<Vec<Value>>,
    /// The next ID token.
    token: Mutex<String>,
    /// Bodies that the token endpoint was sent.
    asked: Mutex<Vec<String>>,
    key_fetches: AtomicUsize,
    /// Held, its keys are not answered.
    silence: tokio::sync::Mutex<()>,
}

/// A key of a provider.
pub(crate) struct Key {
    key: CoreEdDsaPrivateSigningKey,
    kid: String,
}

impl Key {
    pub(crate) fn new(kid: &str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let id = Some(JsonWebKeyId::new(kid.to_owned()));
        let key = CoreEdDsaPrivateSigningKey::from_ed25519_pem(&pair.serialize_pem(), id).unwrap();
        Self {
            key,
            kid: kid.to_owned(),
        }
    }

    pub(crate) fn public(&self) -> Value {
        serde_json::to_value(self.key.as_verification_key()).unwrap()
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.sign_as("JWT", claims)
    }

    pub(crate) fn sign_as(&self, typ: &str, claims: &Value) -> String {
        let head = json!({ "alg": "EdDSA", "kid": self.kid, "typ": typ });
        let signed = format!("{}.{}", part(&head), part(claims));
        let algorithm = CoreJwsSigningAlgorithm::EdDsa;
        let signature = self.key.sign(&algorithm, signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// JSON as a JWT has it.
pub(crate) fn part(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

impl Rogue {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Inner {
            issuer: Mutex::new(issuer.clone()),
            ..Inner::default()
        });
        let app = Router::new()
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/keys", get(keys))
            .route("/token", post(token))
            .with_state(inner.clone());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            issuer,
            inner,
            task,
        }
    }

    pub(crate) fn publish(&self, keys: &[&Key]) {
        let keys = keys.iter().map(|key| key.public());
        *self.inner.keys.lock().unwrap() = keys.collect();
    }

    pub(crate) fn claim_to_be(&self, issuer: &str) {
        *self.inner.claims_to_be.lock().unwrap() = Some(issuer.to_owned());
    }

    /// Answers the next code with this token; without one, every code is refused.
    pub(crate) fn answer(&self, token: String) {
        *self.inner.token.lock().unwrap() = token;
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.inner.asked.lock().unwrap().clone()
    }

    /// Its keys are not answered as long as this is held.
    pub(crate) async fn silence(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.inner.silence.lock().await
    }

    pub(crate) fn key_fetches(&self) -> usize {
        self.inner.key_fetches.load(Ordering::SeqCst)
    }

    /// As it is configured.
    pub(crate) fn config(&self, world: &World, name: &str) -> SsoConfig {
        config(world, name, &self.issuer)
    }
}

/// A provider of this name, whether there is one or not.
pub(crate) fn config(world: &World, name: &str, issuer: &str) -> SsoConfig {
    use std::os::unix::fs::PermissionsExt as _;
    let file = world.dir.path().join(format!("{name}.secret"));
    std::fs::write(&file, SECRET).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    SsoConfig {
        title: None,
        name: name.into(),
        preset: Default::default(),
        issuer: Some(issuer.into()),
        client_id: CLIENT.into(),
        client_secret_file: file,
        levels: None,
        groups_claim: Some("groups".into()),
        groups_lifetime: None,
        max_age: None,
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn metadata(State(inner): State<Arc<Inner>>) -> Json<Value> {
    let at = inner.issuer.lock().unwrap().clone();
    let issuer = inner.claims_to_be.lock().unwrap().clone();
    Json(json!({
        "issuer": issuer.unwrap_or(at.clone()),
        "authorization_endpoint": format!("{at}/auth"),
        "token_endpoint": format!("{at}/token"),
        "jwks_uri": format!("{at}/keys"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        // What it says it signs with is not what it may sign with.
        "id_token_signing_alg_values_supported": ["EdDSA", "RS256", "HS256", "none"],
    }))
}

async fn keys(State(inner): State<Arc<Inner>>) -> Json<Value> {
    inner.key_fetches.fetch_add(1, Ordering::SeqCst);
    let _answered = inner.silence.lock().await;
    Json(json!({ "keys": *inner.keys.lock().unwrap() }))
}

async fn token(State(inner): State<Arc<Inner>>, body: String) -> Response {
    inner.asked.lock().unwrap().push(body);
    let token = std::mem::take(&mut *inner.token.lock().unwrap());
    if token.is_empty() {
        let refusal = json!({ "error": "invalid_grant", "error_description": "<b>used</b>" });
        return (StatusCode::BAD_REQUEST, Json(refusal)).into_response();
    }
    Json(json!({ "access_token": "x", "token_type": "Bearer", "id_token": token })).into_response()
}
