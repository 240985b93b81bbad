//! The JSON API and its description, made of the same routes.

use axum::routing::get;
use axum::{Json, Router};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::site::Site;
use crate::{api, own, passkeys, sso};

/// What the description says beside the calls.
#[derive(OpenApi)]
#[openapi(info(
    title = "Portcullis portal",
    description = "Log in, and manage your devices, factors and sessions. Who asks is told by the \
        device's address inside the tunnel: calls need no cookies and no tokens."
))]
struct Description;

/// Every call below `/api/v1`, and `openapi.json`, which describes them.
pub(crate) fn routes() -> Router<Site> {
    let calls = api::routes()
        .merge(passkeys::calls())
        .merge(own::calls())
        .merge(sso::calls());
    let (router, description) = OpenApiRouter::with_openapi(Description::openapi())
        .nest("/api/v1", calls)
        .split_for_parts();
    let answer = Json(description);
    router.route("/api/v1/openapi.json", get(async || answer))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use axum::body::Body;
    use axum::http::{Method, Request, StatusCode, header};
    use portcullis_control::{Control, ControlConfig};
    use tower::ServiceExt as _;

    use super::*;

    type Calls = BTreeMap<String, BTreeSet<String>>;

    fn described() -> Calls {
        let calls = api::routes()
            .merge(passkeys::calls())
            .merge(own::calls())
            .merge(sso::calls());
        let (_, description) = OpenApiRouter::with_openapi(Description::openapi())
            .nest("/api/v1", calls)
            .split_for_parts();
        let text = serde_json::to_value(description).unwrap();
        let paths = text["paths"].as_object().unwrap();
        let methods = |path: &serde_json::Value| {
            let methods = path.as_object().unwrap().keys();
            methods.map(|method| method.to_uppercase()).collect()
        };
        let paths = paths
            .iter()
            .map(|(path, item)| (path.clone(), methods(item)));
        paths.collect()
    }

    /// The paths of a router: axum shows them in its debugging output alone.
    fn routed() -> BTreeSet<String> {
        let text = format!("{:?}", routes());
        let paths = text.split('"').filter(|part| part.starts_with("/api/v1"));
        let paths = paths.filter(|path| *path != "/api/v1/openapi.json");
        paths.map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn every_route_is_described_and_every_description_is_a_route() {
        let described = described();
        let paths: BTreeSet<String> = described.keys().cloned().collect();
        assert!(
            paths.len() > 10 && routed() == paths,
            "{:?} {paths:?}",
            routed()
        );

        let state = tempfile::tempdir().unwrap();
        let config = ControlConfig {
            database: format!("sqlite://{}/portcullis.db", state.path().display()),
            state_dir: state.path().join("state"),
            ..ControlConfig::default()
        };
        let control = Control::open(config).await.unwrap();
        let site = Site {
            logins: control.logins(),
            passkeys: None,
            sso: None,
        };
        for (path, methods) in described {
            // No route takes this method: the answer names those that are taken.
            let request = Request::builder().method(Method::TRACE).uri(&path);
            let request = request.body(Body::empty()).unwrap();
            let answer = routes()
                .with_state(site.clone())
                .oneshot(request)
                .await
                .unwrap();
            assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
            let allowed = answer.headers()[header::ALLOW].to_str().unwrap();
            let allowed = allowed.split(',').filter(|method| *method != "HEAD");
            let allowed: BTreeSet<String> = allowed.map(str::to_owned).collect();
            assert_eq!(allowed, methods, "{path}");
        }
    }
}
