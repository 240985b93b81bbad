//! The page over a socket.

use portcullis_metrics::{Labels, Page, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

async fn ask(address: std::net::SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let request = format!("{head} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("asks");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answers");
    answer
}

#[tokio::test]
async fn each_request_gets_a_fresh_page_and_nothing_else_is_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("address");
    let count = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let scrape = move || {
        let count = count.clone();
        async move {
            let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
            let mut page = Page::default();
            page.counter("scrapes", "Pages made", [(Labels::new(), number)]);
            page
        }
    };
    let server = tokio::spawn(serve(listener, scrape, std::future::pending()));
    for number in 1..=2 {
        let page = ask(address, "GET /metrics").await;
        assert!(page.starts_with("HTTP/1.1 200"), "{page}");
        assert!(page.contains("application/openmetrics-text"), "{page}");
        assert!(
            page.contains(&format!("portcullis_scrapes_total {number}")),
            "{page}"
        );
    }
    assert!(ask(address, "GET /").await.starts_with("HTTP/1.1 404"));
    assert!(
        ask(address, "POST /metrics")
            .await
            .starts_with("HTTP/1.1 405")
    );
    server.abort();
}
