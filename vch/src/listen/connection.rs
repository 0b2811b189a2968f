//! One client's connection: the TLS handshake under a deadline, then requests one after the other, until the client goes or the router takes the connection over.
//!
//! Whoever is slow here holds up nobody but himself. How a stream ends is left as it is: a client that says by TLS or by TCP that he has no more to send still
//! reads what comes.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// From the connection to the end of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// For the head of a request, and so for the pause between two: a client keeps its connections for less.
const HEAD: Duration = Duration::from_secs(60);
/// The longest that a connection is open without a word.
#[cfg(test)]
pub(super) const LONGEST: Duration = Duration::from_secs(HANDSHAKE.as_secs() + HEAD.as_secs());
/// For a client that is not let in to read why.
const FAREWELL: Duration = Duration::from_secs(1);
/// What of a stranger's words is read and dropped meanwhile.
const FAREWELL_BYTES: u64 = 64 * 1024;
/// The first byte of a TLS connection (RFC 8446, 5.1: a record of type handshake).
const TLS_HANDSHAKE: u8 = 22;
/// What Go's servers answer, and docker's client knows by its text, to tell the user to use TLS.
const NOT_TLS: &[u8] = b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// A client's TLS, or nothing if he is late, has not what it takes, or does not speak it.
pub(super) async fn shake_hands(mut stream: TcpStream, acceptor: &TlsAcceptor) -> Option<TlsStream<TcpStream>> {
    let handshake = async move {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(1..) if first[0] == TLS_HANDSHAKE => {}
            Ok(1..) if first[0].is_ascii_uppercase() => {
                part(&mut stream, NOT_TLS).await;
                return None;
            }
            Ok(_) | Err(_) => return None,
        }
        match acceptor.accept(stream).into_fallible().await {
            Ok(stream) => Some(stream),
            Err((_, mut stream)) => {
                // rustls has sent its alert; what the client still says would make the kernel take it back
                part(&mut stream, b"").await;
                None
            }
        }
    };
    timeout(HANDSHAKE, handshake).await.ok().flatten()
}

/// Says a last word, and lets the client read it.
async fn part(stream: &mut TcpStream, word: &[u8]) {
    let parting = async {
        stream.write_all(word).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(FAREWELL_BYTES), &mut tokio::io::sink()).await
    };
    // who does not want to hear it goes without
    let _gone = timeout(FAREWELL, parting).await.is_err();
}

/// Serves requests. The place is taken until the stream is closed, by whomever it is used then.
pub(super) async fn converse<S>(stream: S, app: Router, place: OwnedSemaphorePermit, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = TokioIo::new(Counted { stream, _place: place });
    // half_close stays off: with it hyper does not see that a client has gone who waits for an answer
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(stream, TowerToHyperService::new(app))
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        // a client that breaks off is no event
        _ended = connection.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ended = connection.await.is_err();
}

/// A stream, and its place among those of its host.
struct Counted<S> {
    stream: S,
    _place: OwnedSemaphorePermit,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
