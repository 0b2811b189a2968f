//! A descriptor that tokio has no type for, as a half of a pipe: tokio waits, and the descriptor itself reads and writes without waiting.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Has tokio watch a descriptor.
///
/// Its unsafe successor, `AsyncFd::register`, asks the caller to promise that the descriptor stays the same and open as long as the value lives.
/// Each type that is given here owns its descriptor and never changes it; this crate has no unsafe code to promise it with.
#[allow(deprecated)]
pub(super) fn watch<T: AsRawFd>(descriptor: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::new(descriptor)
}

/// One of the two halves of a non-blocking descriptor, which is closed with the second of them.
pub(super) struct Half<T: AsRawFd>(pub(super) Arc<AsyncFd<T>>);

impl<T: AsRawFd> AsyncRead for Half<T>
where
    for<'a> &'a T: Read,
{
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            match ready.try_io(|descriptor| retried(|| descriptor.get_ref().read(unfilled))) {
                Ok(result) => return Poll::Ready(result.map(|count| buffer.advance(count))),
                Err(_would_block) => {}
            }
        }
    }
}

impl<T: AsRawFd> AsyncWrite for Half<T>
where
    for<'a> &'a T: Write,
{
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(context))?;
            match ready.try_io(|descriptor| retried(|| descriptor.get_ref().write(bytes))) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A link's pipe has no half that ends alone: it ends when both halves are dropped.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// An interruption by a signal means nothing.
fn retried(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
