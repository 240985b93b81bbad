//! A real OpenID Provider, and somebody who fills in its forms.

mod provider;

use std::collections::BTreeMap;

use openidconnect::url::Url;

pub(crate) use provider::{CLIENT, Provider, SECRET};

/// A person's browser at the provider.
pub(crate) struct Browser {
    http: reqwest::Client,
    cookies: BTreeMap<String, String>,
}

/// What the browser got.
pub(crate) struct Page {
    pub(crate) url: Url,
    text: String,
}

impl Browser {
    pub(crate) fn new() -> Self {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .unwrap();
        Self {
            http,
            cookies: BTreeMap::new(),
        }
    }

    /// Signs in, agrees to whatever is asked, and is sent back: to the address that this answers.
    pub(crate) async fn sign_in(&mut self, url: &str, login: &str) -> Url {
        let mut page = self.open(Url::parse(url).unwrap()).await;
        for _ in 0..4 {
            if page.text.is_empty() {
                return page.url;
            }
            let form = match page.text.contains("name=\"login\"") {
                true => vec![("prompt", "login"), ("login", login), ("password", "x")],
                false => vec![("prompt", "consent")],
            };
            page = self.submit(&page, &form).await;
        }
        panic!("still at {}", page.url);
    }

    /// Does not sign in after all.
    pub(crate) async fn cancel(&mut self, url: &str) -> Url {
        let page = self.open(Url::parse(url).unwrap()).await;
        let mut abort = page.url.clone();
        abort.set_path(&format!("{}/abort", page.url.path()));
        self.open(abort).await.url
    }

    /// Signs out at the provider, which tells of it.
    pub(crate) async fn sign_out(&mut self, issuer: &str) {
        let page = self
            .open(Url::parse(&format!("{issuer}/session/end")).unwrap())
            .await;
        let (_, rest) = page
            .text
            .split_once("name=\"xsrf\" value=\"")
            .expect("the form");
        let (xsrf, _) = rest.split_once('"').unwrap();
        let form = [("xsrf", xsrf), ("logout", "yes")];
        self.submit(&page, &form).await;
    }

    async fn open(&mut self, url: Url) -> Page {
        let request = self.http.get(url.clone());
        self.follow(url, request).await
    }

    async fn submit(&mut self, page: &Page, form: &[(&str, &str)]) -> Page {
        let (_, rest) = page.text.split_once("action=\"").expect("a form");
        let (action, _) = rest.split_once('"').unwrap();
        let url = page.url.join(action).unwrap();
        let mut query = Url::parse("http://x/").unwrap();
        query.query_pairs_mut().extend_pairs(form);
        let request = self
            .http
            .post(url.clone())
            .header("content-type", "application/x-www-form-urlencoded")
            .body(query.query().unwrap().to_owned());
        self.follow(url, request).await
    }

    /// Follows redirects as long as they stay at the provider.
    async fn follow(&mut self, mut url: Url, mut request: reqwest::RequestBuilder) -> Page {
        let home = url.origin();
        for _ in 0..10 {
            let cookies: Vec<String> = self
                .cookies
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            let answer = request
                .header("cookie", cookies.join("; "))
                .send()
                .await
                .unwrap();
            for cookie in answer.headers().get_all("set-cookie") {
                let pair = cookie.to_str().unwrap().split(';').next().unwrap();
                let (name, value) = pair.split_once('=').unwrap();
                match value {
                    "" => self.cookies.remove(name),
                    value => self.cookies.insert(name.to_owned(), value.to_owned()),
                };
            }
            let Some(location) = answer.headers().get("location") else {
                let text = answer.text().await.unwrap();
                return Page { url, text };
            };
            url = url.join(location.to_str().unwrap()).unwrap();
            if url.origin() != home {
                let text = String::new();
                return Page { url, text };
            }
            request = self.http.get(url.clone());
        }
        panic!("redirects without end, at {url}");
    }
}
