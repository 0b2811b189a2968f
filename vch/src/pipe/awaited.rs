//! A pipe that will be there: its halves wait for the connection, so that whoever uses them can begin before it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::{Pipe, Reader, Writer};

/// The halves of the pipe that `connection` will give; `None` is the end of it before it began. The reader must be polled for it to come.
pub fn awaited(connection: impl Future<Output = Option<Pipe>> + Send + 'static) -> (Reader, Writer) {
    let (give, take) = oneshot::channel();
    (Box::new(Reading::Waiting(Box::pin(connection), Some(give))), Box::new(Writing::Waiting(take)))
}

enum Reading {
    Waiting(Pin<Box<dyn Future<Output = Option<Pipe>> + Send>>, Option<oneshot::Sender<Writer>>),
    There(Reader),
    Over,
}

enum Writing {
    Waiting(oneshot::Receiver<Writer>),
    There(Writer),
    Over,
}

impl AsyncRead for Reading {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match &mut *self {
                Reading::There(reader) => return Pin::new(reader).poll_read(context, buffer),
                Reading::Over => return Poll::Ready(Ok(())),
                Reading::Waiting(connection, give) => match (ready!(connection.as_mut().poll(context)), give.take()) {
                    (Some(pipe), Some(give)) => {
                        let (reader, writer) = pipe.split();
                        // a writer that nobody has any more is closed with the reader
                        give.send(writer).ok();
                        *self = Reading::There(reader);
                    }
                    _ => *self = Reading::Over,
                },
            }
        }
    }
}

impl Writing {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<&mut Writer>> {
        if let Writing::Waiting(take) = self {
            *self = ready!(Pin::new(take).poll(context)).map_or(Writing::Over, Writing::There);
        }
        Poll::Ready(match self {
            Writing::There(writer) => Some(writer),
            Writing::Waiting(_) | Writing::Over => None,
        })
    }
}

impl AsyncWrite for Writing {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(self.poll(context)) {
            Some(writer) => Pin::new(writer).poll_write(context, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.poll(context)) {
            Some(writer) => Pin::new(writer).poll_flush(context),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.poll(context)) {
            Some(writer) => Pin::new(writer).poll_shutdown(context),
            None => Poll::Ready(Ok(())),
        }
    }
}
