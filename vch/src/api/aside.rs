//! Threads of their own for what takes long, and files for what clients send.
//!
//! It decides what a client hears when neither can be had. What is done with them is the other parts'.

use std::fs::File;
use std::io;

use axum::body::BodyDataStream;
use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;

use super::carried;
use super::error::ApiError;

/// Does what blocks, on a thread of its own.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| ApiError::internal(format!("the work was given up: {error}")))
}

/// Keeps what a client sends in a file that `open` makes. A client would rather write to the end than read why not: what cannot be kept is read all the same.
pub(super) async fn spool(
    open: impl FnOnce() -> io::Result<File> + Send + 'static,
    pieces: &mut BodyDataStream,
) -> Result<File, ApiError> {
    let failed = |error: io::Error| ApiError::internal(format!("cannot keep what comes: {error}"));
    let mut file = tokio::fs::File::from_std(aside(open).await?.map_err(failed)?);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| ApiError::bad_parameter(format!("the request's body broke off: {error}")))?;
        if let Err(error) = file.write_all(&piece).await {
            drop(file);
            carried::drain(pieces).await;
            return Err(failed(error));
        }
    }
    file.flush().await.map_err(failed)?;
    Ok(file.into_std().await)
}
