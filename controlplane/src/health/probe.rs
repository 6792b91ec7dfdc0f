//! One health check of one backend, through the kernel's network.
//!
//! Reads no more than the head of an answer, so a body that is huge or never ends costs nothing.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use config::model::{Check, CheckKind};
use config::words::ProxyHeader;
use dataplane::rewrite::proxy;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Room for the head of an answer, in bytes; a longer one fails the check.
const MAX_HEAD_LEN: usize = 16 << 10;

/// How one check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the backend proved to be alive.
    pub passed: bool,
    /// What was seen, in words.
    pub reason: String,
}

/// Checks `target` once, or the same address at the port that the check names.
///
/// The check's timeout covers connecting and the answer.
pub async fn probe(check: &Check, target: SocketAddr) -> Outcome {
    let target = SocketAddr::new(target.ip(), check.port.unwrap_or(target.port()));
    let limit = Duration::from_millis(check.timeout_ms.into());
    let start = Instant::now();
    let seen = match &check.kind {
        CheckKind::Tcp => timeout(limit, tcp(target)).await,
        CheckKind::Http { path, host, status, proxy } => {
            let ask = async {
                let stream = introduced(target, proxy.unwrap_or(ProxyHeader::None)).await?;
                http(stream, target, path, host.as_deref(), *status).await
            };
            timeout(limit, ask).await
        }
    };
    match seen {
        Ok(Ok(what)) => {
            Outcome { passed: true, reason: format!("{what} in {} ms", start.elapsed().as_millis()) }
        }
        Ok(Err(reason)) => Outcome { passed: false, reason },
        Err(_) => Outcome { passed: false, reason: format!("timed out after {} ms", check.timeout_ms) },
    }
}

/// Opens a connection that is reset when it is dropped: the server learns at once that nothing follows,
/// and no check leaves a port of ours in TIME_WAIT.
async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(target).await?;
    stream.set_zero_linger()?;
    Ok(stream)
}

async fn tcp(target: SocketAddr) -> Result<String, String> {
    connect(target).await.map_err(|error| io_reason(&error))?;
    Ok("connected".to_owned())
}

/// The same for a server that reads a PROXY header first, and learns from it that nobody is a client.
async fn introduced(target: SocketAddr, header: ProxyHeader) -> Result<TcpStream, String> {
    let bytes: &[u8] = match header {
        ProxyHeader::None => &[],
        ProxyHeader::V1 => proxy::UNKNOWN_V1,
        ProxyHeader::V2 => &proxy::LOCAL_V2,
    };
    let begin = async {
        let mut stream = connect(target).await?;
        // Else the request would wait until the server has acknowledged the header.
        stream.set_nodelay(true)?;
        stream.write_all(bytes).await?;
        Ok(stream)
    };
    begin.await.map_err(|error| io_reason(&error))
}

async fn http(
    stream: TcpStream,
    target: SocketAddr,
    path: &str,
    host: Option<&str>,
    expected: Option<u16>,
) -> Result<String, String> {
    let request = Request::get(path)
        .header(header::HOST, host.map_or_else(|| target.to_string(), str::to_owned))
        .header(header::USER_AGENT, concat!("trutina/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("request not possible: {error}"))?;
    let status = status_of(stream, request).await.map_err(|error| http_reason(&error))?;
    let number = status.as_u16();
    match expected {
        Some(expected) if number != expected => Err(format!("HTTP {number}, expected {expected}")),
        None if !(200..400).contains(&number) => Err(format!("HTTP {number}, expected 200 to 399")),
        _ => Ok(format!("HTTP {number}")),
    }
}

/// Sends the request and reads the head of the answer.
async fn status_of(stream: TcpStream, request: Request<Empty<Bytes>>) -> hyper::Result<StatusCode> {
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MAX_HEAD_LEN).handshake(TokioIo::new(stream)).await?;
    let mut answer = pin!(sender.send_request(request));
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // The connection has ended, well or not, and has told the request how.
        _ = connection => answer.await,
    };
    answer.map(|answer| answer.status())
}

fn io_reason(error: &io::Error) -> String {
    error.kind().to_string()
}

fn http_reason(error: &hyper::Error) -> String {
    if error.is_parse_too_large() {
        return "head of the answer too long".to_owned();
    }
    if error.is_parse() {
        return "answer is not HTTP".to_owned();
    }
    if error.is_incomplete_message() {
        return "closed without an answer".to_owned();
    }
    match error.source().and_then(|source| source.downcast_ref()) {
        Some(source) => io_reason(source),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;

    fn tcp_check(timeout_ms: u32) -> Check {
        Check { kind: CheckKind::Tcp, port: None, interval_ms: 1000, timeout_ms, rise: 2, fall: 3 }
    }

    fn http_check(status: Option<u16>, timeout_ms: u32) -> Check {
        let kind = CheckKind::Http { path: "/alive?x=1".to_owned(), host: None, status, proxy: None };
        Check { kind, ..tcp_check(timeout_ms) }
    }

    async fn listen() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// Accepts one connection, reads the request, writes `head`, then `body` until the peer goes away.
    async fn serve(head: &'static str, body: &'static [u8]) -> (SocketAddr, JoinHandle<String>) {
        let (listener, address) = listen().await;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let len = stream.read(&mut request).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            while !body.is_empty() && stream.write_all(body).await.is_ok() {}
            String::from_utf8(request[..len].to_vec()).unwrap()
        });
        (address, server)
    }

    /// Checks a server that answers with `head` and nothing else.
    async fn reason(head: &'static str, status: Option<u16>) -> (bool, String) {
        let (address, _) = serve(head, b"").await;
        let outcome = probe(&http_check(status, 1000), address).await;
        (outcome.passed, outcome.reason)
    }

    #[tokio::test]
    async fn a_connection_passes_the_tcp_check_and_is_reset() {
        let (listener, address) = listen().await;
        let outcome = probe(&tcp_check(1000), address).await;
        assert!(outcome.passed && outcome.reason.starts_with("connected in "), "{outcome:?}");
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn nobody_listening_is_a_refused_connection() {
        let (listener, address) = listen().await;
        drop(listener);
        for check in [tcp_check(1000), http_check(None, 1000)] {
            let outcome = probe(&check, address).await;
            assert_eq!(outcome, Outcome { passed: false, reason: "connection refused".to_owned() });
        }
    }

    #[tokio::test]
    async fn the_port_of_the_check_goes_before_the_backends() {
        let (_listener, address) = listen().await;
        let (closed, backend) = listen().await;
        drop(closed);
        let check = Check { port: Some(address.port()), ..tcp_check(1000) };
        assert!(probe(&check, backend).await.passed);
    }

    #[tokio::test]
    async fn the_request_is_what_a_server_expects() {
        let (address, server) = serve("HTTP/1.1 204 No Content\r\n\r\n", b"").await;
        let outcome = probe(&http_check(None, 1000), address).await;
        assert!(outcome.passed && outcome.reason.starts_with("HTTP 204 in "), "{outcome:?}");
        let request = server.await.unwrap();
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            request,
            format!(
                "GET /alive?x=1 HTTP/1.1\r\nhost: {address}\r\nuser-agent: trutina/{version}\r\nconnection: close\r\n\r\n"
            )
        );
    }

    #[tokio::test]
    async fn a_header_comes_before_the_request_where_it_is_wanted() {
        for (header, bytes) in [
            (ProxyHeader::None, &b""[..]),
            (ProxyHeader::V1, b"PROXY UNKNOWN\r\n"),
            (ProxyHeader::V2, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"),
        ] {
            let (listener, address) = listen().await;
            let server = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") || !request.windows(4).any(|it| it == b"GET ") {
                    stream.read_buf(&mut request).await.unwrap();
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                request
            });
            let kind =
                CheckKind::Http { path: "/".to_owned(), host: None, status: None, proxy: Some(header) };
            assert!(probe(&Check { kind, ..tcp_check(1000) }, address).await.passed);
            let request = server.await.unwrap();
            assert_eq!(&request[..bytes.len()], bytes);
            assert!(request[bytes.len()..].starts_with(b"GET / "), "{header}");
        }
    }

    #[tokio::test]
    async fn the_status_decides() {
        for (head, status, passed) in [
            ("HTTP/1.1 200 OK\r\n\r\n", Some(200), true),
            ("HTTP/1.0 200 OK\r\n\r\n", None, true),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", None, true),
            ("HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\n\r\n", None, true),
            ("HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\n\r\n", Some(200), false),
            ("HTTP/1.1 404 Not Found\r\n\r\n", Some(404), true),
        ] {
            assert_eq!(reason(head, status).await.0, passed, "{head}");
        }
    }

    #[tokio::test]
    async fn failures_say_what_was_seen() {
        for (head, status, want) in [
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", Some(200), "HTTP 503, expected 200"),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", None, "HTTP 503, expected 200 to 399"),
            ("", None, "closed without an answer"),
            ("HTTP/1.1 200 OK\r\nServer: half", None, "closed without an answer"),
            ("SSH-2.0-OpenSSH_9.2\r\n", None, "answer is not HTTP"),
            ("\u{16}\u{3}\u{1}\u{2}\r\n\r\n", None, "answer is not HTTP"),
        ] {
            assert_eq!(reason(head, status).await, (false, want.to_owned()), "{head:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_accepts_and_stalls_times_out() {
        let (listener, address) = listen().await;
        let start = Instant::now();
        let outcome = probe(&http_check(None, 100), address).await;
        assert_eq!(outcome, Outcome { passed: false, reason: "timed out after 100 ms".to_owned() });
        assert!(start.elapsed() < Duration::from_secs(1));
        drop(listener);
    }

    #[tokio::test]
    async fn a_body_without_end_does_not_matter() {
        let (address, server) = serve("HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 65536]).await;
        let outcome = probe(&http_check(Some(200), 1000), address).await;
        assert!(outcome.passed, "{outcome:?}");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_head_without_end_fails_the_check() {
        let (address, server) = serve("HTTP/1.1 200 OK\r\n", b"X-Filler: 0123456789abcdef\r\n").await;
        let outcome = probe(&http_check(Some(200), 2000), address).await;
        assert_eq!(outcome, Outcome { passed: false, reason: "head of the answer too long".to_owned() });
        server.await.unwrap();
    }
}
