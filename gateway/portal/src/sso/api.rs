//! The calls. A program opens the address in a browser of the same device; what comes of it shows in
//! `GET /session`, or, where one more factor is wanted, by going on with the attempt.

use axum::extract::Path;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Serialize;

use super::{On, Port, Providers};
use crate::api::Told;
use crate::guard::DeviceAddr;
use crate::site::Site;

pub(super) fn routes() -> Router<Site> {
    Router::new()
        .route("/login/sso", get(providers))
        .route("/login/sso/{provider}", post(begin))
}

#[derive(Serialize)]
struct Offered {
    providers: Vec<String>,
}

async fn providers(Providers(providers): Providers) -> Json<Offered> {
    Json(Offered { providers })
}

#[derive(Serialize)]
struct Begun {
    attempt: String,
    url: String,
    expires_in_s: u64,
}

async fn begin(
    On(sso): On,
    Port(port): Port,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Path(provider): Path<String>,
) -> Result<Json<Begun>, Told> {
    let visit = sso.begin(from, &provider, port).await?;
    Ok(Json(Begun {
        attempt: visit.attempt.as_str().to_owned(),
        url: visit.url,
        expires_in_s: visit.expires_in.as_secs(),
    }))
}
