//! Docker save: an archive that is written while it is read.

use std::io::{self, Write};
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::mpsc::{Sender, channel};

use super::{event, no_store};
use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::query::Params;
use crate::maker::Maker;

pub(super) async fn several(State(api): State<Arc<Api>>, params: Params) -> Result<Response, ApiError> {
    let maker = api.maker.clone().ok_or_else(no_store)?;
    let names: Vec<String> = params.all("names").map(str::to_owned).collect();
    if names.is_empty() {
        return Err(ApiError::bad_parameter("say which images: names=IMAGE"));
    }
    save(maker, names).await
}

pub(super) async fn save(maker: Arc<Maker>, names: Vec<String>) -> Result<Response, ApiError> {
    let images = maker.images.chosen(&names)?;
    let (sender, receiver) = channel(4);
    tokio::task::spawn_blocking(move || {
        let out = io::BufWriter::with_capacity(PIECE, Pieces(sender.clone()));
        match maker.images.save(&images, out) {
            Ok(()) => {
                for (image, _) in &images {
                    event(&maker, "save", &image.id, &image.id, Some(image));
                }
            }
            // breaks the answer off, which is how a client hears of it
            Err(error) => drop(sender.blocking_send(Err(io::Error::other(format!("{error:#}"))))),
        }
    });
    let pieces = stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], Body::from_stream(pieces)).into_response())
}

/// Pieces of an answer; an error when nobody reads them any more.
struct Pieces(Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes of an archive that are sent at once.
const PIECE: usize = 64 << 10;
