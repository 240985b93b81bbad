//! The calls. A program opens the address in a browser of the same device; what comes of it shows in
//! `GET /session`, or, where one more factor is wanted, by going on with the attempt.

use axum::extract::Path;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{On, Port, Providers};
use crate::api::{Refusal, Told};
use crate::guard::DeviceAddr;
use crate::site::Site;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(providers))
        .routes(routes!(begin))
}

#[derive(Serialize, ToSchema)]
struct Offered {
    providers: Vec<String>,
}

/// The providers that this device may sign in by.
#[utoipa::path(get, path = "/login/sso", tag = "login", responses((status = 200, body = Offered)))]
async fn providers(providers: Providers) -> Json<Offered> {
    Json(Offered {
        providers: providers.offered().await,
    })
}

#[derive(Serialize, ToSchema)]
struct Begun {
    attempt: String,
    url: String,
    expires_in_s: u64,
}

/// Begins a login by a provider: where to send the browser.
#[utoipa::path(post, path = "/login/sso/{provider}", tag = "login", params(("provider" = String, Path)),
    responses((status = 200, body = inline(Begun)), (status = "4XX", body = Refusal)))]
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
