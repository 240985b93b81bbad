//! The call. A login by a provider is begun by a browser of the device, on our page, and is bound to it; what
//! comes of it shows in `GET /session`.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Port, Providers};
use crate::site::Site;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(providers))
}

#[derive(Serialize, ToSchema)]
struct Offered {
    providers: Vec<String>,
    /// The page of each, in the same order: to be opened in a browser of this device.
    pages: Vec<String>,
}

/// The providers that this device may sign in by.
#[utoipa::path(get, path = "/login/sso", tag = "login", responses((status = 200, body = Offered)))]
async fn providers(providers: Providers, Port(port): Port) -> Json<Offered> {
    let names = providers.offered().await;
    let pages = names.iter().filter_map(|name| providers.page(name, port));
    Json(Offered {
        pages: pages.collect(),
        providers: names,
    })
}
