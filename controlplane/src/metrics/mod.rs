//! `/metrics`: all counters as Prometheus text, over HTTP on loopback.
//!
//! The control thread owns the numbers; a scrape asks it for a copy and renders that into a registry of its
//! own, so that nothing that has gone away lingers on the page.

mod page;
#[cfg(test)]
mod samples;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time;

use crate::api::{Stats, Status};
use page::render;

/// Connections served at the same time; further ones wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 32;

/// Time a client has to send the head of its request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for a whole exchange; one that takes longer is cut.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(15);

/// Pause after a failed accept: it fails for want of descriptors, and at once again if tried at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

/// Asks the control thread for the numbers of one page.
pub type Scrape = oneshot::Sender<(Stats, Status)>;

/// Serves `GET /metrics` until the receiver of `scrape` is closed or dropped.
pub async fn serve(listener: TcpListener, scrape: mpsc::Sender<Scrape>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut exchanges = JoinSet::new();
    loop {
        tokio::select! {
            accepted = accept(&listener, &places) => match accepted {
                Ok((stream, place)) => {
                    let scrape = scrape.clone();
                    exchanges.spawn(async move {
                        let _ = time::timeout(EXCHANGE_TIMEOUT, exchange(stream, scrape)).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "metrics: accept failed");
                    time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = exchanges.join_next() => {}
            () = scrape.closed() => return,
        }
    }
}

/// Takes a place first and a connection then.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

/// Serves one request on a connection of its own: scrapes are too rare to keep it open.
async fn exchange(stream: TcpStream, scrape: mpsc::Sender<Scrape>) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(|request| {
                let scrape = scrape.clone();
                async move { Ok::<_, Infallible>(answer(&request, &scrape).await) }
            }),
        )
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "metrics: connection cut");
    }
}

async fn answer(request: &Request<Incoming>, scrape: &mpsc::Sender<Scrape>) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => page(scrape).await,
        (&Method::GET, "/") => {
            respond(StatusCode::OK, PLAIN_TEXT, "Trutina's metrics are at /metrics.\n".into())
        }
        (&Method::GET, _) => respond(StatusCode::NOT_FOUND, PLAIN_TEXT, "Not here; try /metrics.\n".into()),
        _ => {
            let mut refusal =
                respond(StatusCode::METHOD_NOT_ALLOWED, PLAIN_TEXT, "Only GET is served.\n".into());
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            refusal
        }
    }
}

async fn page(scrape: &mpsc::Sender<Scrape>) -> Response<Full<Bytes>> {
    let (sender, numbers) = oneshot::channel();
    // Where nobody takes the sender, it is dropped, and the wait for numbers ends with an error.
    let _ = scrape.send(sender).await;
    match numbers.await {
        Ok((stats, status)) => match render(&stats, &status) {
            Ok(text) => respond(StatusCode::OK, prometheus::TEXT_FORMAT, text),
            Err(error) => {
                respond(StatusCode::INTERNAL_SERVER_ERROR, PLAIN_TEXT, format!("No page; {error}.\n"))
            }
        },
        Err(_) => respond(StatusCode::SERVICE_UNAVAILABLE, PLAIN_TEXT, "Trutina is stopping.\n".into()),
    }
}

fn respond(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::samples::{stats, status};
    use super::*;

    /// Serves a stub of the control thread and sends it one request; answers all that comes back.
    async fn fetch(request: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (scrape, mut scrapes) = mpsc::channel::<Scrape>(1);
        tokio::spawn(serve(listener, scrape));
        tokio::spawn(async move {
            while let Some(reply) = scrapes.recv().await {
                drop(reply.send((stats(), status())));
            }
        });
        let mut stream = TcpStream::connect(address).await.unwrap();
        // A server that has read enough resets the connection, which may take the answer with it.
        let sent = stream.write_all(request.as_bytes()).await;
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer).await;
        if sent.is_err() || read.is_err() { "reset".to_owned() } else { answer }
    }

    #[tokio::test]
    async fn http_answers_by_path_and_method() {
        for (request, head, word) in [
            ("GET /metrics", "HTTP/1.1 200", "\ntrutina_flows{worker=\"0\"} 43\n"),
            ("GET /metrics?x=1", "HTTP/1.1 200", "content-type: text/plain; version=0.0.4\r\n"),
            ("GET /", "HTTP/1.1 200", "/metrics"),
            ("GET /other", "HTTP/1.1 404", "/metrics"),
            ("POST /metrics", "HTTP/1.1 405", "allow: GET\r\n"),
        ] {
            let answer = fetch(&format!("{request} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
            assert!(answer.starts_with(head) && answer.contains(word), "{request}: {answer}");
        }
    }

    #[tokio::test]
    async fn junk_and_huge_heads_are_refused() {
        assert!(fetch("junk\r\n\r\n").await.starts_with("HTTP/1.1 400"));
        // More than twice what is read before it is looked at again.
        let huge = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(2_000_000));
        let answer = fetch(&huge).await;
        assert!(answer.starts_with("HTTP/1.1 431") || answer == "reset", "{answer}");
    }

    #[tokio::test]
    async fn it_ends_with_the_control_thread() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (scrape, scrapes) = mpsc::channel::<Scrape>(1);
        drop(scrapes);
        time::timeout(Duration::from_secs(5), serve(listener, scrape)).await.expect("it has returned");
    }
}
